//! Heap of an idle VPN session, by the allocator's own account.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::household::{Household, Kind, Servers};

/// The system's allocator; keeps count of what is in use while it is told to.
pub(crate) struct Counting {
    on: AtomicBool,
    used: AtomicUsize,
}

impl Counting {
    pub(crate) const fn new() -> Self {
        Self { on: AtomicBool::new(false), used: AtomicUsize::new(0) }
    }

    /// One thread only: others would be missed.
    fn add(&self, bytes: usize) {
        if self.on.load(Ordering::Relaxed) {
            self.used.store(self.used.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        }
    }
}

#[expect(unsafe_code, reason = "an allocator has no safe interface")]
// SAFETY: every call is the system allocator's, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        self.add(layout.size().wrapping_neg());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.add(size.wrapping_sub(layout.size()));
        // SAFETY: as the caller promises.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// What the sessions of one kind take.
pub(super) struct Heap {
    /// Bytes for each with all of them open.
    pub(super) each: f64,
    /// The most at any number from a tenth on: tables grow in steps.
    pub(super) most: f64,
    /// Of `each`, what stays when the NAT is thrown away: passthrough's own.
    pub(super) vpn: f64,
}

/// Opens `count` sessions and looks at the heap after each, the benchmark's own account of them aside.
pub(super) fn measure(kind: Kind, count: u32, servers: Servers) -> Heap {
    let counter = &crate::ALLOCATOR;
    let mut household = Household::new(servers, 1, false);
    household.sessions.reserve(count as usize);
    counter.used.store(0, Ordering::Relaxed);
    counter.on.store(true, Ordering::Relaxed);
    let mut most = 0_f64;
    let mut used = 0.0;
    for n in 1..=count {
        household.open(kind);
        used = counter.used.load(Ordering::Relaxed) as f64;
        if n >= count / 10 {
            most = most.max(used / f64::from(n));
        }
    }
    let Household { engine, .. } = household;
    drop(engine.vpn);
    let left = counter.used.load(Ordering::Relaxed) as f64;
    counter.on.store(false, Ordering::Relaxed);
    drop(engine.nat);
    Heap { each: used / f64::from(count), most, vpn: (used - left) / f64::from(count) }
}
