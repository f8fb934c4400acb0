//! What the instrumentation counts, where the build has it: one byte for each edge of the control flow, and the
//! operands of comparisons.
//!
//! LLVM's SanitizerCoverage calls the functions below by their names. It instruments no function whose name begins
//! with `__sanitizer_`. An ordinary build never calls them, and has no counters then.

#![expect(unsafe_code, reason = "the counters are memory that the instrumentation owns")]
#![expect(missing_docs, reason = "the functions with LLVM's names are LLVM's to describe")]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

static START: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static LEN: AtomicUsize = AtomicUsize::new(0);

const RING: usize = 512;
static OPERANDS: [[AtomicU64; 2]; RING] = [const { [AtomicU64::new(0), AtomicU64::new(0)] }; RING];
static COMPARED: AtomicUsize = AtomicUsize::new(0);
static LISTENING: AtomicBool = AtomicBool::new(false);

/// How many counters there are; 0: the build is not instrumented.
pub fn len() -> usize {
    LEN.load(Ordering::Relaxed)
}

/// Starts anew; with `listening`, operands of comparisons are noted too, which takes time.
pub fn reset(listening: bool) {
    LISTENING.store(listening, Ordering::Relaxed);
    COMPARED.store(0, Ordering::Relaxed);
    let (start, len) = (START.load(Ordering::Relaxed), len());
    if len > 0 {
        // SAFETY: `start` and `len` are the section of counters, which lives as long as the process; only this
        // thread runs instrumented code.
        unsafe { ptr::write_bytes(start, 0, len) }
    }
}

/// Copies the counters into `counters`, as far as they fit.
pub fn read(counters: &mut [u8]) {
    let (start, len) = (START.load(Ordering::Relaxed), len().min(counters.len()));
    if len > 0 {
        // SAFETY: as above; `counters` has room for `len` bytes and is no part of the section.
        unsafe { ptr::copy_nonoverlapping(start, counters.as_mut_ptr(), len) }
    }
}

/// The last comparisons of unequal numbers.
pub fn comparisons() -> Vec<(u64, u64)> {
    let count = COMPARED.load(Ordering::Relaxed).min(RING);
    let pair = |[one, other]: &[AtomicU64; 2]| (one.load(Ordering::Relaxed), other.load(Ordering::Relaxed));
    let mut pairs: Vec<_> =
        OPERANDS.iter().take(count).map(pair).filter(|(one, other)| one != other).collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// # Safety
/// `start..stop` are the counters of a module; the instrumentation calls this before `main`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    START.store(start, Ordering::Relaxed);
    LEN.store(stop.addr().saturating_sub(start.addr()), Ordering::Relaxed);
}

#[inline(always)]
fn compared(one: u64, other: u64) {
    if !LISTENING.load(Ordering::Relaxed) {
        return;
    }
    let at = COMPARED.load(Ordering::Relaxed);
    if let Some([first, second]) = OPERANDS.get(at % RING) {
        first.store(one, Ordering::Relaxed);
        second.store(other, Ordering::Relaxed);
    }
    COMPARED.store(at.wrapping_add(1), Ordering::Relaxed);
}

macro_rules! comparison {
    ($($name:ident $type:ty),*) => { $(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(one: $type, other: $type) {
            compared(u64::from(one), u64::from(other));
        }
    )* };
}

comparison! {
    __sanitizer_cov_trace_cmp1 u8, __sanitizer_cov_trace_cmp2 u16, __sanitizer_cov_trace_cmp4 u32,
    __sanitizer_cov_trace_cmp8 u64, __sanitizer_cov_trace_const_cmp1 u8, __sanitizer_cov_trace_const_cmp2 u16,
    __sanitizer_cov_trace_const_cmp4 u32, __sanitizer_cov_trace_const_cmp8 u64
}

/// # Safety
/// `cases` points to a count, a width in bits and as many values as counted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_trace_switch(value: u64, cases: *const u64) {
    if !LISTENING.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: the caller's promise.
    let count = unsafe { cases.read() };
    let at = COMPARED.load(Ordering::Relaxed) % usize::try_from(count).unwrap_or(1).max(1);
    if count > 0 {
        // SAFETY: `at` is less than the count, and two words come before the values.
        let case = unsafe { cases.add(2 + at).read() };
        compared(value, case);
    }
}
