//! Walks in block order, in one piece and in several, beside the walk in label order.

use super::*;
use crate::SeriesCursor;
use crate::order::write_block_key;

/// What is asked of a view.
pub(super) struct Walk<'a> {
    pub(super) view: &'a View,
    pub(super) tenant: TenantId,
    pub(super) matchers: &'a [Matcher],
    pub(super) range: TimeRange,
    pub(super) shards: &'a ShardSet,
}

/// What walks in block order show, which all show the same.
pub(super) fn in_block_order(walk: &Walk<'_>) -> BTreeMap<Labels, BTreeMap<Millis, u64>> {
    let cursor = || {
        let (view, tenant) = (walk.view, walk.tenant);
        view.cursor_in_block_order(tenant, walk.matchers, walk.range, walk.shards)
            .unwrap()
    };
    let whole = given([cursor()]);
    assert!(
        whole
            .iter()
            .is_sorted_by(|a, b| block_key(&a.0) < block_key(&b.0))
    );
    let mut small = cursor();
    // As few series at a time as a batch can have.
    small.read_in_batches_of(1);
    assert_eq!(given([small]), whole);
    for pieces in [2, 7] {
        assert_eq!(given(cursor().split(pieces)), whole, "{pieces} pieces");
    }
    whole.into_iter().collect()
}

fn block_key(labels: &Labels) -> Vec<u8> {
    let mut key = Vec::new();
    write_block_key(labels.canonical(), &mut key);
    key
}

/// The series of cursors one behind the other. Samples are taken out of every second series, as queries do.
fn given(cursors: impl IntoIterator<Item = SeriesCursor>) -> Vec<(Labels, BTreeMap<Millis, u64>)> {
    let mut found = Vec::new();
    for mut cursor in cursors {
        let (mut timestamps, mut values, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        while cursor.advance().unwrap() {
            let series = cursor.current();
            let labels = Labels::from_canonical(series.canonical).unwrap();
            if found.len() % 2 == 0 {
                timestamps = series.timestamps.to_vec();
                values = series.values.to_vec();
            } else {
                timestamps.clear();
                values.clear();
                cursor.swap_samples(&mut timestamps, &mut values, &mut starts);
            }
            assert!(timestamps.is_sorted_by(|a, b| a < b));
            let bits = values.iter().map(|value| value.to_bits());
            found.push((labels, timestamps.iter().copied().zip(bits).collect()));
        }
    }
    found
}
