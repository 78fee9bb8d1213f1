//! Into which stretches times are cut: the same ones for all questions with the same step, wherever they begin.

use std::ops::Range;
use trefoil_model::Millis;
use trefoil_query_promql::Grid;

/// The shortest stretch. Windows are a whole number of it, so that what comes to the present one costs no piece of those before,
/// and the stretch at the left end of a range, of which too little may be kept, is short.
const STRETCH_MS_MIN: Millis = 30 * 60 * 1000;
/// Fewer steps are no stretch, so that its labels and stamp are little beside its values.
const STEPS_MIN: Millis = 16;

/// The steps of a grid that lie in one stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Its place in time, in lengths of a stretch.
    pub(super) number: i64,
    /// At least one.
    pub(super) steps: Range<usize>,
}

/// The length of a stretch for a step: half an hour, doubled until it has enough steps.
fn length(step: Millis) -> Millis {
    let mut length = STRETCH_MS_MIN;
    while length / STEPS_MIN < step && length < Millis::MAX / 4 {
        length *= 2;
    }
    length
}

/// The stretches of a grid, which together have all of its times. Those of a stretch with the number `n` are in
/// `[n * length, (n + 1) * length)`.
pub(super) fn stretches(grid: Grid) -> Vec<Stretch> {
    let (steps, length) = (grid.steps(), length(grid.step));
    let mut stretches = Vec::new();
    let mut at = 0;
    while at < steps {
        let number = grid.at(at).div_euclid(length);
        let behind = number.saturating_add(1).saturating_mul(length);
        let left = behind.saturating_sub(grid.at(at));
        // The first step that is not before the end.
        let more = left.div_euclid(grid.step) + Millis::from(left % grid.step != 0);
        let end = steps.min(at + usize::try_from(more).unwrap_or(steps).max(1));
        stretches.push(Stretch {
            number,
            steps: at..end,
        });
        at = end;
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Millis = 60_000;

    fn cut(start: Millis, end: Millis, step: Millis) -> Vec<(i64, Range<usize>)> {
        let stretches = stretches(Grid { start, end, step }).into_iter();
        stretches.map(|one| (one.number, one.steps)).collect()
    }

    #[test]
    fn stretches_are_aligned_and_have_steps_enough() {
        let halves = cut(10 * MINUTE, 70 * MINUTE, MINUTE);
        assert_eq!(halves, [(0, 0..20), (1, 20..50), (2, 50..61)]);
        let behind = cut(29 * MINUTE + 1, 31 * MINUTE + 1, MINUTE);
        assert_eq!(behind, [(0, 0..1), (1, 1..3)]);
        let before_zero = cut(-MINUTE, MINUTE, MINUTE);
        assert_eq!(before_zero, [(-1, 0..1), (0, 1..3)]);
        let (hour, day) = (60 * MINUTE, 24 * 60 * MINUTE);
        let hours = cut(0, 2 * day, hour);
        assert_eq!(hours, [(0, 0..16), (1, 16..32), (2, 32..48), (3, 48..49)]);
        let long = cut(0, 10 * day, 400 * day);
        assert_eq!(long, [(0, 0..1)]);
    }

    #[test]
    fn a_window_is_a_whole_number_of_short_stretches() {
        assert_eq!(trefoil_model::WINDOW_MILLIS % STRETCH_MS_MIN, 0);
        for step in [1, 15_000, MINUTE, 5 * MINUTE, 60 * MINUTE, 1_000 * MINUTE] {
            assert!(length(step) / step >= STEPS_MIN);
            assert!(
                length(step) % trefoil_model::WINDOW_MILLIS == 0
                    || length(step) < trefoil_model::WINDOW_MILLIS
            );
        }
    }
}
