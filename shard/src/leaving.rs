//! Replicas of shards that this node does not own any more: they end when all owners follow the
//! configuration without it, or a later one. That is a condition, never a timer.

use crate::{Envelope, Message, Record, Replication, replication::Step};
use std::collections::BTreeMap;
use trefoil_model::{ConfigurationNumber, NodeId, ShardEntry, ShardSet};

/// What owners have confirmed.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    confirmed: BTreeMap<NodeId, Vec<(ShardSet, ConfigurationNumber)>>,
}

impl Replication {
    fn leaving(&self) -> ShardSet {
        let owned = self.rows.owned_by(self.me.node);
        self.replicas.all().difference(&owned)
    }

    /// Asks the owners of what is leaving.
    pub(crate) fn confirm_leaving(&mut self, step: &mut Step<'_>) {
        if self.faults.drop_unconfirmed {
            let leaves = |entry: &ShardEntry| !entry.configuration.new.contains(self.me.node);
            let all = self.replicas.all();
            let rows = self.rows.within(&all);
            let going = rows.filter(|(_, entry)| leaves(entry));
            let going = going.fold(ShardSet::new(), |all, (both, _)| all.union(&both));
            return self.end_replicas(step, going);
        }
        let leaving = self.leaving();
        if leaving.is_empty() {
            self.leaving.confirmed.clear();
            return;
        }
        let mut asks: BTreeMap<NodeId, Vec<(ShardSet, ConfigurationNumber)>> = BTreeMap::new();
        for (both, entry) in self.rows.within(&leaving) {
            if entry.configuration.is_joint() {
                continue;
            }
            for owner in entry.configuration.new.iter() {
                let ask = asks.entry(owner).or_default();
                ask.push((both.clone(), entry.configuration.number));
            }
        }
        for (owner, numbers) in asks {
            self.send(step, owner, Message::ConfirmAsk { numbers });
        }
    }

    pub(crate) fn on_confirm_ask(
        &mut self,
        step: &mut Step<'_>,
        envelope: Envelope,
        numbers: &[(ShardSet, ConfigurationNumber)],
    ) {
        let asked = numbers.iter().map(|(shards, number)| (shards, *number));
        let compared = self.rows.compare(asked);
        let followed = compared.equal.union(&compared.higher_here);
        if !followed.is_empty() {
            let numbers = self.rows.numbers(&followed);
            self.reply(step, &envelope, Message::ConfirmAnswer { numbers });
        }
        if !compared.lower_here.is_empty() {
            let mut lower = self.rows.numbers(&compared.lower_here);
            let known = lower
                .iter()
                .fold(ShardSet::new(), |all, (set, _)| all.union(set));
            let unknown = compared.lower_here.difference(&known);
            if !unknown.is_empty() {
                lower.push((unknown, ConfigurationNumber(0)));
            }
            self.reply(
                step,
                &envelope,
                Message::ConfigurationsAsk { numbers: lower },
            );
        }
    }

    pub(crate) fn on_confirm_answer(
        &mut self,
        step: &mut Step<'_>,
        from: NodeId,
        numbers: &[(ShardSet, ConfigurationNumber)],
    ) {
        self.leaving.confirmed.insert(from, numbers.to_vec());
        let mut ended = ShardSet::new();
        for (both, entry) in self.rows.within(&self.leaving()) {
            let configuration = &entry.configuration;
            if configuration.is_joint() {
                continue;
            }
            let confirmed = configuration.new.iter().fold(both, |left, owner| {
                left.intersection(&self.confirmed_by(owner, configuration.number))
            });
            ended = ended.union(&confirmed);
        }
        self.end_replicas(step, ended);
    }

    fn confirmed_by(&self, owner: NodeId, number: ConfigurationNumber) -> ShardSet {
        let confirmed = self.leaving.confirmed.get(&owner);
        let groups = confirmed.into_iter().flatten();
        groups
            .filter(|(_, confirmed)| *confirmed >= number)
            .fold(ShardSet::new(), |all, (shards, _)| all.union(shards))
    }

    pub(crate) fn end_replicas(&mut self, step: &mut Step<'_>, shards: ShardSet) {
        if shards.is_empty() {
            return;
        }
        let record = Record::Drop {
            shards: shards.clone(),
        };
        self.append_gated(step, record);
        for damage in &self.replicas.damages {
            let lost = damage.shards.intersection(&shards);
            if !lost.is_empty() {
                let repair = (self.journal.end, lost, damage.range);
                self.repairs.push_back(repair);
            }
        }
        self.drop_replicas(&shards);
    }

    /// The effect of a [`Record::Drop`], live and in replay.
    pub(crate) fn drop_replicas(&mut self, shards: &ShardSet) {
        self.replicas.drop(shards);
        if !self.faults.drop_keeps_positions {
            self.positions.drop_shards(shards);
            self.held.forget(shards);
        }
    }
}
