//! Which links a network fault disturbs: pure, from the hosts' numbers and zones and a seeded choice.
//!
//! A shape becomes steps in time, most of them one step at once. Links that a step does not name stay as
//! they are; the end of every fault is [`super::Network::heal`], so that steps need not undo themselves.
//! Only links between the given hosts are touched, and no link from a host to itself.

use super::{Link, LinkQuality};
use rand::{RngExt, rngs::StdRng, seq::SliceRandom};
use std::{collections::BTreeSet, time::Duration};

/// How the links between hosts can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// One host and the others do not see each other.
    IsolateOne,
    /// A majority and a minority do not see each other.
    Split,
    /// Every host sees a majority, and no two see the same one.
    MajoritiesRing,
    /// Two halves do not see each other, but one host sees both.
    Bridge,
    /// One host is not heard, or does not hear.
    OneWay,
    /// The leader and the others do not see each other.
    LeaderOnly,
    /// One zone and the others do not see each other.
    Zone,
    /// Half of the links, one direction each, are cut one after the other and come back in another order.
    Clog,
    /// Packets take 20 to 200 ms longer, and up to half as much on top.
    Slow,
    /// 5 to 30 % of the packets are lost.
    Lossy,
    /// 10 to 50 % of the packets arrive twice.
    Duplicating,
    /// 10 to 50 % of the packets are overtaken.
    Reordering,
    /// 128 to 1024 kB/s pass.
    Narrow,
}

/// What a shape is chosen for.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// The hosts that take part, each once.
    pub hosts: Vec<usize>,
    /// The zone of each of them, in the same order; empty where there are no zones.
    pub zones: Vec<String>,
    /// The leader of the metadata plane, when it is known.
    pub leader: Option<usize>,
    /// How long the fault will last: sequences are spread over it.
    pub lasts: Duration,
}

/// Changes that happen together.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// When, since the beginning of the fault.
    pub at: Duration,
    /// What every named link becomes; each is named once.
    pub changes: Vec<(Link, LinkQuality)>,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 13] = [
        Self::IsolateOne,
        Self::Split,
        Self::MajoritiesRing,
        Self::Bridge,
        Self::OneWay,
        Self::LeaderOnly,
        Self::Zone,
        Self::Clog,
        Self::Slow,
        Self::Lossy,
        Self::Duplicating,
        Self::Reordering,
        Self::Narrow,
    ];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IsolateOne => "isolate-one",
            Self::Split => "split",
            Self::MajoritiesRing => "majorities-ring",
            Self::Bridge => "bridge",
            Self::OneWay => "one-way",
            Self::LeaderOnly => "leader-only",
            Self::Zone => "zone",
            Self::Clog => "clog",
            Self::Slow => "slow",
            Self::Lossy => "lossy",
            Self::Duplicating => "duplicating",
            Self::Reordering => "reordering",
            Self::Narrow => "narrow",
        }
    }

    /// The steps of this fault, in the order of their times. `None` where it would not be one: too few
    /// hosts, no leader known, a single zone.
    ///
    /// # Panics
    /// When there are zones, but not one per host.
    #[must_use]
    pub fn steps(self, layout: &Layout, random: &mut StdRng) -> Option<Vec<Step>> {
        let mut hosts = layout.hosts.clone();
        hosts.shuffle(random);
        if hosts.len() < self.hosts_min() {
            return None;
        }
        let links = match self {
            Self::IsolateOne => between(&hosts[..1], &hosts[1..]),
            Self::Split => {
                let minority = random.random_range(1..=(hosts.len() - 1) / 2);
                between(&hosts[..minority], &hosts[minority..])
            }
            Self::MajoritiesRing => ring(&hosts),
            Self::Bridge => {
                let (one, other) = hosts[1..].split_at((hosts.len() - 1) / 2);
                between(one, other)
            }
            Self::OneWay => match random.random_bool(0.5) {
                true => one_way(&hosts[..1], &hosts[1..]),
                false => one_way(&hosts[1..], &hosts[..1]),
            },
            Self::LeaderOnly => {
                let leader = layout.leader?;
                let (leader, others): (Vec<_>, Vec<_>) =
                    hosts.iter().partition(|host| **host == leader);
                between(&leader, &others)
            }
            Self::Zone => zone(layout, random)?,
            Self::Clog => return Some(clog(&hosts, layout.lasts, random)),
            Self::Slow | Self::Lossy | Self::Duplicating | Self::Reordering | Self::Narrow => {
                let quality = self.quality(random);
                return Some(disturb(some_links(&hosts, random), quality));
            }
        };
        (!links.is_empty()).then(|| disturb(links, LinkQuality::cut()))
    }

    /// With fewer hosts the shape does not exist.
    fn hosts_min(self) -> usize {
        match self {
            Self::Split | Self::MajoritiesRing | Self::Bridge => 3,
            _ => 2,
        }
    }

    /// How bad a link gets that still passes something.
    fn quality(self, random: &mut StdRng) -> LinkQuality {
        let mut quality = LinkQuality::default();
        match self {
            Self::Slow => {
                quality.delay = Duration::from_millis(random.random_range(20..=200));
                quality.jitter = quality.delay / 2;
            }
            Self::Lossy => quality.loss = random.random_range(0.05..0.3),
            Self::Duplicating => quality.duplicate = random.random_range(0.1..0.5),
            Self::Reordering => quality.reorder = random.random_range(0.1..0.5),
            Self::Narrow => {
                let kilobytes = random.random_range(128..=1024);
                quality.bytes_per_second = Some(1000 * kilobytes);
            }
            _ => quality = LinkQuality::cut(),
        }
        quality
    }
}

/// All links of the hosts among each other.
#[must_use]
pub fn all_links(hosts: &[usize]) -> Vec<Link> {
    let pairs = hosts
        .iter()
        .flat_map(|&from| hosts.iter().map(move |&to| Link { from, to }));
    pairs.filter(|link| link.from != link.to).collect()
}

/// One step at once that gives all these links the same quality.
fn disturb(links: Vec<Link>, quality: LinkQuality) -> Vec<Step> {
    let changes = links.into_iter().map(|link| (link, quality)).collect();
    vec![Step {
        at: Duration::ZERO,
        changes,
    }]
}

fn one_way(from: &[usize], to: &[usize]) -> Vec<Link> {
    from.iter()
        .flat_map(|&from| to.iter().map(move |&to| Link { from, to }))
        .collect()
}

fn between(one: &[usize], other: &[usize]) -> Vec<Link> {
    let mut links = one_way(one, other);
    links.extend(one_way(other, one));
    links
}

/// All links, or those of the first host.
fn some_links(hosts: &[usize], random: &mut StdRng) -> Vec<Link> {
    match random.random_bool(0.5) {
        true => all_links(hosts),
        false => between(&hosts[..1], &hosts[1..]),
    }
}

/// The hosts in a circle, each seeing as many neighbours as a majority takes. Both directions of a link
/// are alike, except for three hosts, where neighbours on both sides would be everybody: there each
/// hears the one before it and is heard by the one behind it.
fn ring(hosts: &[usize]) -> Vec<Link> {
    let count = hosts.len();
    let sees = |from: usize, to: usize| {
        let ahead = (to + count - from) % count;
        let distance = ahead.min(count - ahead);
        let neighbours = count / 2;
        match count {
            3 => ahead == 1,
            _ if neighbours % 2 == 1 && count.is_multiple_of(2) => {
                distance <= neighbours / 2 || distance == count / 2
            }
            _ => distance <= neighbours.div_ceil(2),
        }
    };
    let places: Vec<usize> = (0..count).collect();
    let cut = all_links(&places)
        .into_iter()
        .filter(|link| !sees(link.from, link.to));
    cut.map(|link| Link {
        from: hosts[link.from],
        to: hosts[link.to],
    })
    .collect()
}

fn zone(layout: &Layout, random: &mut StdRng) -> Option<Vec<Link>> {
    if layout.zones.is_empty() {
        return None;
    }
    assert_eq!(layout.hosts.len(), layout.zones.len(), "one zone per host");
    let zones: BTreeSet<&String> = layout.zones.iter().collect();
    let zones: Vec<&String> = zones.into_iter().collect();
    let cut = zones[random.random_range(0..zones.len())];
    let placed = layout.hosts.iter().zip(&layout.zones);
    let (inside, outside): (Vec<_>, Vec<_>) = placed.partition(|(_, zone)| *zone == cut);
    let numbers = |hosts: Vec<(&usize, &String)>| hosts.iter().map(|(host, _)| **host).collect();
    let (inside, outside): (Vec<usize>, Vec<usize>) = (numbers(inside), numbers(outside));
    Some(between(&inside, &outside))
}

/// Half of the links: cut evenly over the first half of the time, back evenly over the second half.
fn clog(hosts: &[usize], lasts: Duration, random: &mut StdRng) -> Vec<Step> {
    let mut links = all_links(hosts);
    links.shuffle(random);
    links.truncate(links.len().div_ceil(2));
    let each = lasts / (2 * links.len() as u32);
    let cuts = links.clone();
    links.shuffle(random);
    let changes = cuts.into_iter().map(|link| (link, LinkQuality::cut()));
    let back = links.into_iter().map(|link| (link, LinkQuality::default()));
    let steps = changes.chain(back).enumerate();
    steps
        .map(|(number, change)| Step {
            at: each * number as u32,
            changes: vec![change],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    /// Every shape for 2 to 9 hosts with gaps in their numbers, under ten seeds; what is impossible is
    /// left out.
    fn each(shape: Shape, check: impl Fn(&Layout, Vec<Step>)) {
        let mut checked = 0;
        for count in 2..10 {
            for seed in 0..10 {
                let layout = Layout {
                    hosts: (0..count).map(|host| 3 * host + 1).collect(),
                    zones: (0..count).map(|host| format!("z{}", host % 3)).collect(),
                    leader: Some(3 * (seed as usize % count) + 1),
                    lasts: Duration::from_secs(10),
                };
                let mut random = StdRng::seed_from_u64(seed);
                if let Some(steps) = shape.steps(&layout, &mut random) {
                    check(&layout, steps);
                    checked += 1;
                }
            }
        }
        assert!(checked >= 60, "{shape:?}: {checked} layouts");
    }

    /// Whom each host hears, itself included, after all steps.
    fn heard(layout: &Layout, steps: &[Step]) -> Vec<BTreeSet<usize>> {
        let mut open: BTreeSet<Link> = all_links(&layout.hosts).into_iter().collect();
        for (link, quality) in steps.iter().flat_map(|step| &step.changes) {
            let known = layout.hosts.contains(&link.from) && layout.hosts.contains(&link.to);
            assert!(known && link.from != link.to, "{link:?}");
            match quality.blocked {
                true => open.remove(link),
                false => open.insert(*link),
            };
        }
        let hears = |to: usize| {
            let from = open.iter().filter(move |link| link.to == to);
            from.map(|link| link.from).chain([to]).collect()
        };
        layout.hosts.iter().map(|host| hears(*host)).collect()
    }

    fn sizes(sets: &[BTreeSet<usize>]) -> Vec<usize> {
        let mut sizes: Vec<usize> = sets.iter().map(BTreeSet::len).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn one_is_isolated() {
        each(Shape::IsolateOne, |layout, steps| {
            let count = layout.hosts.len();
            let mut expected = vec![count - 1; count];
            expected[0] = 1;
            assert_eq!(sizes(&heard(layout, &steps)), expected);
        });
    }

    #[test]
    fn a_split_leaves_one_majority() {
        each(Shape::Split, |layout, steps| {
            let count = layout.hosts.len();
            let groups: BTreeSet<BTreeSet<usize>> = heard(layout, &steps).into_iter().collect();
            assert_eq!(groups.len(), 2);
            assert_eq!(groups.iter().map(BTreeSet::len).sum::<usize>(), count);
            assert!(groups.iter().any(|group| group.len() > count / 2));
        });
    }

    #[test]
    fn in_a_ring_each_sees_a_majority_and_no_two_the_same() {
        each(Shape::MajoritiesRing, |layout, steps| {
            let count = layout.hosts.len();
            let hears = heard(layout, &steps);
            assert!(sizes(&hears)[0] > count / 2 && sizes(&hears)[count - 1] < count);
            assert_eq!(hears.iter().collect::<BTreeSet<_>>().len(), count);
            let cut = |link: Link| steps[0].changes.iter().any(|change| change.0 == link);
            let is_heard = |host: &usize| {
                let (from, others) = (*host, layout.hosts.iter());
                others.filter(|&&to| !cut(Link { from, to })).count()
            };
            assert!(layout.hosts.iter().all(|host| is_heard(host) > count / 2));
        });
    }

    #[test]
    fn a_bridge_is_the_only_way_across() {
        each(Shape::Bridge, |layout, steps| {
            let count = layout.hosts.len();
            let hears = heard(layout, &steps);
            let bridges: Vec<_> = hears.iter().filter(|all| all.len() == count).collect();
            assert_eq!(bridges.len(), 1);
            let sides: BTreeSet<_> = hears.iter().filter(|all| all.len() < count).collect();
            assert_eq!(sides.len(), 2);
            let in_common = sides.iter().map(|side| side.len()).sum::<usize>();
            assert_eq!(in_common, count + 1, "both sides have the bridge");
        });
    }

    #[test]
    fn one_way_leaves_the_other_way() {
        each(Shape::OneWay, |_, steps| {
            let cut: BTreeSet<Link> = steps[0].changes.iter().map(|change| change.0).collect();
            let back = |link: &Link| Link {
                from: link.to,
                to: link.from,
            };
            assert!(cut.iter().all(|link| !cut.contains(&back(link))));
        });
    }

    #[test]
    fn the_leader_is_the_one_who_is_alone() {
        each(Shape::LeaderOnly, |layout, steps| {
            let hears = heard(layout, &steps);
            let place = layout.hosts.iter().position(|h| Some(*h) == layout.leader);
            assert_eq!(hears[place.unwrap()].len(), 1);
        });
        let unknown = Layout {
            hosts: vec![0, 1, 2],
            ..Layout::default()
        };
        let mut random = StdRng::seed_from_u64(1);
        assert_eq!(Shape::LeaderOnly.steps(&unknown, &mut random), None);
        assert_eq!(Shape::Zone.steps(&unknown, &mut random), None);
    }

    #[test]
    fn a_zone_stays_together() {
        each(Shape::Zone, |layout, steps| {
            let hears = heard(layout, &steps);
            for (zone, hears) in layout.zones.iter().zip(&hears) {
                let placed = layout.hosts.iter().zip(&layout.zones);
                let own = placed.filter(|(_, other)| *other == zone);
                assert!(own.into_iter().all(|(host, _)| hears.contains(host)));
            }
            assert!(sizes(&hears)[0] < layout.hosts.len());
        });
    }

    #[test]
    fn a_clog_comes_and_goes_link_by_link() {
        each(Shape::Clog, |layout, steps| {
            let links = all_links(&layout.hosts).len().div_ceil(2);
            assert_eq!(steps.len(), 2 * links);
            assert!(steps.iter().all(|step| step.changes.len() == 1));
            assert!(steps.is_sorted_by_key(|step| step.at));
            assert!(steps.iter().all(|step| step.at < layout.lasts));
            let (cut, back) = steps.split_at(links);
            assert!(cut.iter().all(|step| step.changes[0].1.blocked));
            let named = |steps: &[Step]| {
                let links = steps.iter().map(|step| step.changes[0].0);
                links.collect::<BTreeSet<Link>>()
            };
            assert_eq!(named(cut), named(back));
            assert_eq!(sizes(&heard(layout, &steps))[0], layout.hosts.len());
        });
    }

    #[test]
    fn other_shapes_disturb_and_do_not_cut() {
        for shape in &Shape::ALL[8..] {
            each(*shape, |layout, steps| {
                assert_eq!(sizes(&heard(layout, &steps))[0], layout.hosts.len());
                let (_, quality) = steps[0].changes[0];
                assert_ne!(quality, LinkQuality::default());
                assert!(steps[0].changes.iter().all(|change| change.1 == quality));
            });
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_steps() {
        for shape in Shape::ALL {
            each(shape, |layout, steps| {
                let again = (0..10).any(|seed| {
                    shape
                        .steps(layout, &mut StdRng::seed_from_u64(seed))
                        .as_ref()
                        == Some(&steps)
                });
                assert!(again, "{shape:?}");
            });
        }
    }
}
