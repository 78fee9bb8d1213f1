//! Counting owners for many shards at once.

use trefoil_model::{Configuration, NodeId, OwnerSet, ShardSet};

/// Those of `shards` that are in at least `need` of the sets.
pub(crate) fn in_at_least<'a>(
    need: usize,
    shards: &ShardSet,
    sets: impl Iterator<Item = &'a ShardSet>,
) -> ShardSet {
    // counted[k]: the shards that are in at least k + 1 of the sets seen so far.
    let mut counted = vec![ShardSet::new(); need];
    for set in sets {
        for level in (0..need).rev() {
            let below = match level {
                0 => shards,
                _ => &counted[level - 1],
            };
            let risen = below.intersection(set);
            if !risen.is_empty() {
                counted[level] = counted[level].union(&risen.intersection(shards));
            }
        }
    }
    counted.pop().unwrap_or_else(|| shards.clone())
}

/// Those of `shards` for which at least `need` of `owners` have the shard in their set.
pub(crate) fn owners_with<'a>(
    need: usize,
    shards: &ShardSet,
    owners: &OwnerSet,
    sets: impl Iterator<Item = (NodeId, &'a ShardSet)>,
) -> ShardSet {
    let of_owners = sets.filter(|(node, _)| owners.contains(*node));
    in_at_least(need, shards, of_owners.map(|(_, set)| set))
}

/// Those of `shards` that a majority of the old and a majority of the new owners hold.
pub(crate) fn held_by_majorities<'a>(
    configuration: &Configuration,
    shards: &ShardSet,
    held: impl Iterator<Item = (NodeId, &'a ShardSet)> + Clone,
) -> ShardSet {
    let (old, new) = (&configuration.old, &configuration.new);
    let by_old = owners_with(old.majority(), shards, old, held.clone());
    if old == new {
        return by_old;
    }
    owners_with(new.majority(), &by_old, new, held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::ShardId;

    #[test]
    fn counts_shard_by_shard() {
        let set = |shards: &[u16]| shards.iter().map(|s| ShardId(*s)).collect::<ShardSet>();
        let all = set(&[0, 1, 2, 70]);
        let sets = [set(&[0, 1, 70]), set(&[0, 2, 70]), set(&[0, 90])];
        assert_eq!(in_at_least(0, &all, sets.iter()), all);
        assert_eq!(in_at_least(1, &all, sets.iter()), all);
        assert_eq!(in_at_least(2, &all, sets.iter()), set(&[0, 70]));
        assert_eq!(in_at_least(3, &all, sets.iter()), set(&[0]));
        assert_eq!(in_at_least(4, &all, sets.iter()), set(&[]));
    }
}
