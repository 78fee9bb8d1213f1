//! Faults of the network: a shape's steps, done one after the other, then healed.

use super::{Fleet, Kind, strike::Struck};
use crate::net::{
    Link, LinkCounts, Network,
    shapes::{Layout, Shape, Step},
};
use anyhow::Context;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

pub(super) async fn strike(fleet: &mut Fleet, step: &super::Step) -> anyhow::Result<Struck> {
    let shape = Shape::ALL
        .into_iter()
        .find(|shape| shape.name() == step.kind.name())
        .context("a network fault without a shape")?;
    let hosts: Vec<usize> = (0..fleet.nodes()).collect();
    let zones = fleet.site().hosts()[..fleet.nodes()].iter();
    let layout = Layout {
        zones: zones.filter_map(|host| host.zone.clone()).collect(),
        leader: fleet.leader().await.ok().flatten(),
        lasts: step.lasts(),
        hosts: hosts.clone(),
    };
    let network = fleet.site().network().context("no network to disturb")?;
    let Some(steps) = shape.steps(&layout, &mut step.dice()) else {
        return Ok(Struck {
            nodes: Vec::new(),
            details: "there is no such fault for these nodes".to_owned(),
            struck: 0,
        });
    };
    let links: BTreeSet<Link> = steps
        .iter()
        .flat_map(|step| step.changes.iter().map(|(link, _)| *link))
        .collect();
    let before = total(network, &links);
    play(network, &steps, step.lasts()).await;
    network.heal();
    let after = total(network, &links);
    Ok(Struck {
        nodes: struck_nodes(&steps, &links, &hosts),
        details: words(&links, &steps),
        struck: proof(step.kind, &before, &after),
    })
}

/// Does the steps at their times and waits until the fault is over.
async fn play(network: &dyn Network, steps: &[Step], lasts: Duration) {
    let begun = Instant::now();
    for step in steps {
        tokio::time::sleep(step.at.saturating_sub(begun.elapsed())).await;
        for (link, quality) in &step.changes {
            network.set(*link, *quality);
        }
    }
    tokio::time::sleep(lasts.saturating_sub(begun.elapsed())).await;
}

fn total(network: &dyn Network, links: &BTreeSet<Link>) -> LinkCounts {
    let mut total = LinkCounts::default();
    for link in links {
        let counts = network.counts(*link);
        total.forwarded += counts.forwarded;
        total.dropped += counts.dropped;
        total.delayed += counts.delayed;
        total.duplicated += counts.duplicated;
        total.reordered += counts.reordered;
    }
    total
}

/// How many packets the fault did something to.
fn proof(kind: Kind, before: &LinkCounts, after: &LinkCounts) -> u64 {
    match kind {
        Kind::Slow | Kind::Narrow => after.delayed - before.delayed,
        Kind::Duplicating => after.duplicated - before.duplicated,
        Kind::Reordering => after.reordered - before.reordered,
        _ => after.dropped - before.dropped,
    }
}

/// Whom the fault strikes: with links that are cut for its whole time, the nodes that do not hear a majority or are not
/// heard by one; else whoever has a disturbed link.
fn struck_nodes(steps: &[Step], links: &BTreeSet<Link>, hosts: &[usize]) -> Vec<usize> {
    let cut = steps.len() == 1 && steps[0].changes.iter().all(|(_, quality)| quality.blocked);
    let is_struck = |host: usize| match cut {
        true => {
            let hears = |other: &&usize| {
                let (to, from) = (
                    Link {
                        from: host,
                        to: **other,
                    },
                    Link {
                        from: **other,
                        to: host,
                    },
                );
                !links.contains(&to) && !links.contains(&from)
            };
            hosts.iter().filter(hears).count() * 2 <= hosts.len()
        }
        false => links
            .iter()
            .any(|link| link.from == host || link.to == host),
    };
    hosts
        .iter()
        .copied()
        .filter(|host| is_struck(*host))
        .collect()
}

fn words(links: &BTreeSet<Link>, steps: &[Step]) -> String {
    let names = links
        .iter()
        .map(|link| format!("{}->{}", link.from + 1, link.to + 1));
    let names: Vec<String> = names.collect();
    let qualities = steps.iter().flat_map(|step| step.changes.iter());
    let quality = qualities.map(|(_, quality)| quality).next();
    match quality {
        Some(quality) if !quality.blocked => format!("{}: {quality:?}", names.join(" ")),
        _ => format!("cut {}", names.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::LinkQuality;

    #[test]
    fn who_hears_a_majority_is_not_struck() {
        let link = |from, to| Link { from, to };
        let cut = |links: &[Link]| Step {
            at: Duration::ZERO,
            changes: links
                .iter()
                .map(|link| (*link, LinkQuality::cut()))
                .collect(),
        };
        let nodes = |links: &[Link]| {
            let set = links.iter().copied().collect();
            struck_nodes(&[cut(links)], &set, &[0, 1, 2])
        };
        assert_eq!(nodes(&[link(0, 1), link(0, 2)]), [0]);
        assert_eq!(nodes(&[link(1, 0), link(2, 0)]), [0]);
        assert_eq!(nodes(&[link(0, 1), link(1, 0)]), Vec::<usize>::new());
        let slow = Step {
            at: Duration::ZERO,
            changes: vec![(link(0, 1), LinkQuality::default())],
        };
        assert_eq!(
            struck_nodes(&[slow], &BTreeSet::from([link(0, 1)]), &[0, 1, 2]),
            [0, 1]
        );
    }
}
