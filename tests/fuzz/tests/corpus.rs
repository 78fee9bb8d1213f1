//! Every target over its seeds, over what was found before, and over seeded mutations of both. What libFuzzer finds
//! becomes a line of hexadecimal digits in `corpus/NAME.txt`.

use anyhow::{Context, ensure};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{env, fs, path::Path};
use trefoil_fuzz::{TARGETS, Target, from_hex};

/// Mutations of each target.
const MUTATIONS: usize = 3_000;

#[test]
fn no_target_breaks_on_mutations_of_what_is_known() -> anyhow::Result<()> {
    for target in TARGETS {
        let known = [(target.seeds)(), found(target)?].concat();
        ensure!(!known.is_empty(), "{} has no seeds", target.name);
        for bytes in &known {
            (target.run)(bytes);
        }
        let mut random = StdRng::seed_from_u64(7);
        for _ in 0..MUTATIONS {
            let base = &known[random.random_range(0..known.len())];
            (target.run)(&mutate(&mut random, base));
        }
    }
    Ok(())
}

#[test]
fn every_saved_file_belongs_to_a_target() -> anyhow::Result<()> {
    for entry in fs::read_dir(corpus())? {
        let file = entry?.path();
        let name = file.file_stem().and_then(|stem| stem.to_str());
        ensure!(
            name.is_some_and(|name| trefoil_fuzz::target(name).is_some()),
            "{} is no target's",
            file.display()
        );
    }
    Ok(())
}

/// Writes what is known of every target to `TREFOIL_FUZZ_SEEDS/NAME/`, where libFuzzer begins; without the variable it only
/// checks that names can be names of folders.
#[test]
fn seeds_can_be_written() -> anyhow::Result<()> {
    let folder = env::var_os("TREFOIL_FUZZ_SEEDS");
    for target in TARGETS {
        ensure!(
            target
                .name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c == '-')
        );
        let Some(folder) = &folder else { continue };
        let folder = Path::new(folder).join(target.name);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let known = [(target.seeds)(), found(target)?].concat();
        for (number, bytes) in known.iter().enumerate() {
            fs::write(folder.join(format!("known-{number}")), bytes)?;
        }
    }
    Ok(())
}

fn corpus() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus"))
}

/// What was found before; lines that begin with `#` say what it was.
fn found(target: &Target) -> anyhow::Result<Vec<Vec<u8>>> {
    let file = corpus().join(format!("{}.txt", target.name));
    if !file.is_file() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.map(from_hex).collect())
}

/// Changes some bytes: flips, overwrites, inserts, removes, repeats, cuts.
fn mutate(random: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    const TELLING: &[u8] = b"\"\\{}=,# \n\0\x01\x7f\x80\xff0-.";
    let mut out = bytes.to_vec();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=out.len());
        let end = (at + random.random_range(0..12)).min(out.len());
        let telling = TELLING[random.random_range(0..TELLING.len())];
        match random.random_range(0..6) {
            0 if at < out.len() => out[at] ^= 1 << random.random_range(0..8),
            1 if at < out.len() => out[at] = telling,
            2 => out.insert(at, telling),
            3 => drop(out.drain(at..end)),
            4 => {
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            _ => out.truncate(at.max(1)),
        }
    }
    out
}
