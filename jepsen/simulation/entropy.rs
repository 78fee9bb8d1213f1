//! Randomness that follows the seed: what the operating system would give is given from a stream instead.
//!
//! The standard library's hash maps, the generators of the libraries and tokio's fairness all begin with
//! `getrandom`, some through the C library's function, one through its `syscall`. This program defines both symbols, so
//! that they come here. A thread that has called [`follow`] gets the stream of its seed; every other thread, and
//! every other system call, gets what it would have got.

use crate::dice::Dice;
use std::{
    cell::RefCell,
    ffi::{c_long, c_uint, c_void},
    sync::atomic::{AtomicUsize, Ordering},
};

thread_local! {
    static STREAM: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// From now on this thread's randomness is that of the seed.
pub(crate) fn follow(seed: u64) {
    STREAM.with(|stream| *stream.borrow_mut() = Some(Dice::new(seed)));
}

/// Fills the buffer from the thread's stream; says whether it has one.
fn fill(buffer: &mut [u8]) -> bool {
    let filled = STREAM.try_with(|stream| {
        let Ok(mut stream) = stream.try_borrow_mut() else {
            return false;
        };
        let Some(dice) = &mut *stream else {
            return false;
        };
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&dice.next().to_le_bytes()[..chunk.len()]);
        }
        true
    });
    filled.unwrap_or(false)
}

type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;

/// The C library's own `syscall`.
fn real_syscall() -> Syscall {
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let mut found = FOUND.load(Ordering::Relaxed);
    if found == 0 {
        // SAFETY: the name is a string that ends with zero.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) } as usize;
        assert!(found != 0, "the C library has no syscall");
        FOUND.store(found, Ordering::Relaxed);
    }
    // SAFETY: the symbol is the C library's function of this type.
    unsafe { std::mem::transmute::<usize, Syscall>(found) }
}

/// Takes the place of the C library's function.
///
/// # Safety
/// As for the C library's: `length` bytes at `buffer` can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    // SAFETY: the same promise, passed on.
    unsafe {
        syscall(
            libc::SYS_getrandom,
            buffer as usize,
            length,
            flags as usize,
            0,
            0,
            0,
        ) as isize
    }
}

/// Takes the place of the C library's function, which takes up to six words behind the number.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    if number == libc::SYS_getrandom && a != 0 && b != 0 {
        // SAFETY: the caller says that `b` bytes at `a` can be written.
        let buffer = unsafe { std::slice::from_raw_parts_mut(a as *mut u8, b) };
        if fill(buffer) {
            return b as c_long;
        }
    }
    // SAFETY: the caller's own call, passed on with all that it may have passed.
    unsafe { real_syscall()(number, a, b, c, d, e, f) }
}
