//! Fair shares: how many shards each node should own, as exact fractions rounded both ways.
//!
//! A share is what a node would own if shards could be cut: `total` spread by weight, where nobody
//! gets more than his bound and what is above it goes to the others (water filling). Any table in
//! which every node stays between its share's floor and ceiling is balanced, and one exists: giving
//! every shard the same fraction of each node satisfies all bounds, and a flow network with whole
//! bounds that has a fractional solution has a whole one.

/// One node's fair share, rounded down and up. Equal when the share is a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) floor: u64,
    pub(super) ceiling: u64,
}

/// An exact non-negative fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fraction {
    numerator: u128,
    denominator: u128,
}

impl Fraction {
    fn whole(value: u64) -> Self {
        Self {
            numerator: u128::from(value),
            denominator: 1,
        }
    }

    fn rounded(self) -> Share {
        let floor = (self.numerator / self.denominator) as u64;
        let exact = self.numerator.is_multiple_of(self.denominator);
        Share {
            floor,
            ceiling: floor + u64::from(!exact),
        }
    }
}

/// Shares of nodes that know no zones. `bound` is the most that one node can own.
pub(super) fn by_weight(weights: &[u64], total: u64, bound: u64) -> Vec<Share> {
    let bounds = vec![bound; weights.len()];
    let filled = fill(weights, &bounds, Fraction::whole(total));
    filled.into_iter().map(Fraction::rounded).collect()
}

/// Shares of nodes in zones: first the zones' (none above its bound), then each zone's among its nodes.
pub(super) fn by_weight_in_zones(
    weights: &[u64],
    zone_of: &[usize],
    zone_bounds: &[u64],
    total: u64,
    node_bound: u64,
) -> Vec<Share> {
    let mut zone_weights = vec![0; zone_bounds.len()];
    for (weight, zone) in weights.iter().zip(zone_of) {
        zone_weights[*zone] += weight;
    }
    let zones = fill(&zone_weights, zone_bounds, Fraction::whole(total));
    let mut shares = vec![
        Share {
            floor: 0,
            ceiling: 0
        };
        weights.len()
    ];
    for (zone, zone_share) in zones.into_iter().enumerate() {
        let members: Vec<usize> = (0..weights.len()).filter(|n| zone_of[*n] == zone).collect();
        let inside: Vec<u64> = members.iter().map(|n| weights[*n]).collect();
        let filled = fill(&inside, &vec![node_bound; inside.len()], zone_share);
        for (node, share) in members.into_iter().zip(filled) {
            shares[node] = share.rounded();
        }
    }
    shares
}

/// Spreads `total` by weight under bounds. The bounds together are at least `total`.
fn fill(weights: &[u64], bounds: &[u64], total: Fraction) -> Vec<Fraction> {
    let mut shares = vec![Fraction::whole(0); weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).collect();
    let mut rest = total;
    loop {
        let weight: u128 = open.iter().map(|i| u128::from(weights[*i])).sum();
        let denominator = rest.denominator * weight;
        let above = |i: usize| {
            rest.numerator * u128::from(weights[i]) > u128::from(bounds[i]) * denominator
        };
        let (full, below): (Vec<usize>, Vec<usize>) = open.iter().partition(|i| above(**i));
        if full.is_empty() {
            for i in open {
                let numerator = rest.numerator * u128::from(weights[i]);
                shares[i] = Fraction {
                    numerator,
                    denominator,
                };
            }
            return shares;
        }
        for i in full {
            shares[i] = Fraction::whole(bounds[i]);
            rest.numerator -= u128::from(bounds[i]) * rest.denominator;
        }
        open = below;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floors(shares: &[Share]) -> Vec<(u64, u64)> {
        shares.iter().map(|s| (s.floor, s.ceiling)).collect()
    }

    #[test]
    fn weight_spreads_the_total_and_the_bound_spills_over() {
        let check = |weights: &[u64], total, bound, expected: &[(u64, u64)]| {
            let shares = by_weight(weights, total, bound);
            assert_eq!(floors(&shares), expected, "{weights:?} {total} {bound}");
        };
        check(&[1, 1, 1], 768, 256, &[(256, 256); 3]);
        check(&[1, 1, 1, 1, 1], 768, 256, &[(153, 154); 5]);
        let rest = (170, 171);
        check(&[2, 1, 1, 1], 768, 256, &[(256, 256), rest, rest, rest]);
        check(&[9], 256, 256, &[(256, 256)]);
    }

    #[test]
    fn strict_zones_bend_the_shares() {
        let shares = by_weight_in_zones(&[1; 4], &[0, 0, 1, 2], &[256; 3], 768, 256);
        assert_eq!(
            floors(&shares),
            vec![(128, 128), (128, 128), (256, 256), (256, 256)]
        );
    }
}
