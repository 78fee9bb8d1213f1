//! The allocator of the binary, and what it gives back when.
//!
//! Heads, flushes and queries take and free tens of MiB at a time, on different threads. What one has freed waits for the same
//! thread to want it again, while the others grow; so it goes back to the system soon. `MIMALLOC_PURGE_DELAY` overrides that.

use std::ffi::{c_int, c_long};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Freed memory waits for so many milliseconds; mimalloc's own default is a second.
const PURGE_DELAY: c_long = 10;

/// `mi_option_purge_delay` in `mi_option_t`, which the crate does not name.
const OPTION_PURGE_DELAY: c_int = 15;

unsafe extern "C" {
    fn mi_option_set_default(option: c_int, value: c_long);
}

/// Chooses when freed memory goes back to the system.
pub(crate) fn configure() {
    // SAFETY: mimalloc is linked, as the allocator above; the function takes numbers only and checks the option's.
    unsafe { mi_option_set_default(OPTION_PURGE_DELAY, PURGE_DELAY) }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    #[test]
    fn the_option_is_the_delay() {
        // SAFETY: as above.
        let get = || unsafe { mi_option_get(OPTION_PURGE_DELAY) };
        // Another version of mimalloc may have numbered its options anew, or have chosen another default.
        assert_eq!(get(), 1000);
        configure();
        assert_eq!(get(), PURGE_DELAY);
    }
}
