//! One program for all targets; `TREFOIL_FUZZ_TARGET` chooses.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::{env, sync::LazyLock};
use trefoil_fuzz::Target;

static CHOSEN: LazyLock<&Target> = LazyLock::new(|| {
    let name = env::var("TREFOIL_FUZZ_TARGET").expect("TREFOIL_FUZZ_TARGET names a target");
    trefoil_fuzz::target(&name).unwrap_or_else(|| panic!("there is no target {name}"))
});

fuzz_target!(|bytes: &[u8]| (CHOSEN.run)(bytes));
