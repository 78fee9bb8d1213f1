//! The promises, checked when everything has been repaired and has come to rest.

use crate::{
    coverage::Seen,
    node::EVER,
    store::{Item, Store},
    world::{Weather, World},
};
use std::{collections::BTreeSet, time::Duration};
use trefoil_model::{ShardId, ShardSet};

/// How long replicas may take to become equal once everything is repaired, in milliseconds.
const HEALED_MS: u64 = 30_000;

impl World {
    /// Whether a node's replicas are trusted, under the numbers and lineages that the plane has now.
    pub(crate) fn is_whole(&self, index: usize) -> bool {
        let node = &self.nodes[index];
        let Some(core) = &node.core else {
            return false;
        };
        let owned: ShardSet = self
            .plane
            .now
            .table
            .iter()
            .filter(|(_, entry)| entry.configuration.has_owner(node.id))
            .map(|(shard, _)| shard)
            .collect();
        let status = core.status();
        let unreadable = node.store.blocks.iter().any(|block| !block.is_readable());
        status.serving == owned && !unreadable && node.manifest.damaged.is_empty()
    }

    /// Repairs everything, waits for rest, and checks the promises.
    pub(crate) fn check_rest(&mut self) -> Result<(), String> {
        self.broken()?;
        if self.skip_rest {
            return Ok(());
        }
        self.weather = Weather::default();
        self.cut.clear();
        self.without_plane.clear();
        self.deaf.clear();
        for index in 0..self.nodes.len() {
            self.resume(index);
            self.start(index);
        }
        self.publish();
        for index in 0..self.nodes.len() {
            let shards = self.shards();
            self.notice_damage(index, &shards, EVER);
        }
        let until = self.now + Duration::from_millis(HEALED_MS);
        loop {
            self.run(200);
            self.broken()?;
            match self.at_rest() {
                Ok(()) => break,
                Err(why) if self.now >= until => return Err(format!("D3: {why}")),
                Err(_) => {}
            }
        }
        self.check_liveness()
    }

    fn broken(&self) -> Result<(), String> {
        match &self.client.broken {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    /// D1 and D3: every owner has everything that was acknowledged, all have the same, nothing that was
    /// deleted came back, and nobody else has anything.
    fn at_rest(&self) -> Result<(), String> {
        for (shard, entry) in self.plane.now.table.iter() {
            if entry.configuration.is_joint() {
                return Err(format!(
                    "{shard:?} is still moving: {:?}",
                    self.reports(shard)
                ));
            }
            let only = ShardSet::from_iter([shard]);
            let owners = &entry.configuration.new;
            let mut contents = Vec::new();
            for node in &self.nodes {
                let items = content(&node.store, &only);
                match owners.contains(node.id) {
                    true => contents.push((node.id, items)),
                    false if !items.is_empty() => {
                        return Err(format!("{:?} still has {shard:?}", node.id));
                    }
                    false => {}
                }
            }
            let first = contents[0].1.clone();
            for (node, items) in &contents {
                if *items != first {
                    let differing: Vec<_> = items.symmetric_difference(&first).collect();
                    return Err(format!("{shard:?} at {node:?} differs: {differing:?}"));
                }
            }
            for sent in self.client.sent.iter().filter(|s| s.item.shard == shard) {
                let here = first.contains(&sent.item);
                let deleted = self.is_deleted(sent);
                if sent.acknowledged && !deleted && !here {
                    return Err(format!("D1: acknowledged {:?} is lost", sent.item));
                }
                // An old copy of a data directory may hold what is deleted and forgotten: nobody promises otherwise.
                let old_copy = self.coverage.of(Seen::OldCopyRestored) > 0;
                if deleted && here && !old_copy {
                    return Err(format!("deleted {:?} is back", sent.item));
                }
            }
        }
        for index in 0..self.nodes.len() {
            if !self.is_whole(index) {
                let status = self.nodes[index].core.as_ref().map(|core| core.status());
                let table = &self.plane.now.table.shards;
                return Err(format!(
                    "node {} is not whole: {status:?}; rows {table:?}",
                    index + 1
                ));
            }
        }
        Ok(())
    }

    fn reports(&self, shard: ShardId) -> Vec<String> {
        let reports = self.plane.reports.iter();
        reports
            .flat_map(|(node, report)| report.groups.iter().map(move |group| (node, group)))
            .filter(|(_, group)| group.shards.contains(shard))
            .map(|(node, group)| format!("{node:?}: {group:?}"))
            .collect()
    }

    /// With everything up, every node takes writes and answers completely, at once.
    fn check_liveness(&mut self) -> Result<(), String> {
        let nodes = self.nodes.len();
        let before = self.client.sent.len();
        for index in 0..nodes {
            let shards = self.shards();
            self.write(index, &shards, 1000);
        }
        self.run(1100);
        let sent = &self.client.sent[before..];
        let lost = sent.iter().filter(|sent| !sent.acknowledged).count();
        if lost > 0 || sent.len() < nodes {
            let sent = sent.len();
            return Err(format!("{lost} of {sent} items are refused at rest"));
        }
        let before = self.client.answered;
        for index in 0..nodes {
            self.query(index, EVER);
        }
        self.run(1000);
        let answered = self.client.answered - before;
        if answered != nodes as u64 {
            return Err(format!(
                "only {answered} of {nodes} queries succeed at rest"
            ));
        }
        self.broken()
    }
}

fn content(store: &Store, shards: &ShardSet) -> BTreeSet<Item> {
    store.read(shards, EVER).collect()
}
