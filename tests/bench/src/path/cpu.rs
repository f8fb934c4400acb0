//! CPU time from the scheduler's own accounts.
//!
//! `/proc/stat` counts ticks and misses most of what short bursts use; `schedstat` has nanoseconds.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// CPU time of all threads of process `id` so far; what it is using at this moment is not in it yet.
pub(super) fn of_process(id: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else { return Duration::ZERO };
    threads.flatten().map(|thread| of_schedstat(&thread.path())).sum()
}

/// CPU time of the kernel threads that soft interrupts are deferred to.
pub(super) fn of_soft_interrupts() -> Duration {
    let Ok(processes) = fs::read_dir("/proc") else { return Duration::ZERO };
    let of_kernel = |folder: &Path| {
        fs::read_to_string(folder.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"))
    };
    processes.flatten().map(|p| p.path()).filter(|path| of_kernel(path)).map(|path| of_schedstat(&path)).sum()
}

fn of_schedstat(folder: &Path) -> Duration {
    let text = fs::read_to_string(folder.join("schedstat")).unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}
