//! Behaviour of the state machine, one rule per test.

use super::limits::CLIENTS_MAX;
use super::*;
use trefoil_model::{
    ConfigurationNumber, Incarnation, LineageId, OwnerSet, ShardId, ShardSet, Signal, TimeRange,
};

/// A state with a running log index, so that a test reads as a list of commands.
#[derive(Default)]
struct Bench {
    state: State,
    elapsed_ms: u64,
    term: u64,
}

impl Bench {
    fn with_members(count: u64) -> Self {
        let mut bench = Self {
            term: 1,
            ..Self::default()
        };
        bench.done(Command::BeginCluster {
            cluster: ClusterId(7),
        });
        for node in 1..=count {
            bench.done(Command::AddMember {
                node: NodeId(node),
                description: description(&format!("n{node}"), node),
            });
        }
        bench
    }

    fn with_placement(members: u64, sets: &[&[u64]]) -> Self {
        let mut bench = Self::with_members(members);
        let owners = sets.iter().map(|set| owners(set)).collect();
        bench.done(Command::CreatePlacement { owners });
        bench
    }

    fn apply(&mut self, command: Command) -> Reply {
        let index = self.state.applied.index + 1;
        let proposal = Proposal {
            client: 1,
            serial: index,
            leader_elapsed_ms: self.elapsed_ms,
            command,
        };
        let at = LogPosition {
            term: self.term,
            index,
        };
        self.state.apply(at, &proposal)
    }

    fn done(&mut self, command: Command) {
        assert_eq!(self.apply(command), Reply::Done);
    }

    fn refused(&mut self, command: Command) -> Refusal {
        let before = self.state.clone();
        let Reply::Refused(refusal) = self.apply(command) else {
            panic!("the command was not refused");
        };
        let mut after = self.state.clone();
        after.applied = before.applied;
        after.cluster.clock = before.cluster.clock;
        after.cluster.sequence = before.cluster.sequence;
        after.clients = before.clients.clone();
        assert_eq!(after, before, "a refused command has no effect");
        refusal
    }

    fn shard(&self, shard: u16) -> &trefoil_model::ShardEntry {
        self.state.placement().get(ShardId(shard)).unwrap()
    }
}

pub(super) fn description(name: &str, lineage: u64) -> MemberDescription {
    MemberDescription {
        name: name.to_owned(),
        zone: String::new(),
        weight: 100,
        addresses: Addresses::default(),
        version: "0.1.0".to_owned(),
        format_level_max: FORMAT_LEVEL_FIRST,
        lineage: LineageId(lineage.into()),
    }
}

fn owners(nodes: &[u64]) -> OwnerSet {
    nodes.iter().copied().map(NodeId).collect()
}

fn change(shard: u16, expected: u64, old: &[u64], new: &[u64]) -> Command {
    Command::SetConfigurations {
        changes: vec![ConfigurationChange {
            shard: ShardId(shard),
            expected: ConfigurationNumber(expected),
            old: owners(old),
            new: owners(new),
        }],
    }
}

fn amnesia(node: u64, lineage: u128) -> Command {
    Command::RecordAmnesia {
        node: NodeId(node),
        shards: None,
        lineage: LineageId(lineage),
    }
}

#[test]
fn a_repeated_proposal_has_one_effect_and_the_first_reply() {
    let mut bench = Bench::with_members(1);
    let proposal = |serial, name: &str| Proposal {
        client: 99,
        serial,
        leader_elapsed_ms: 0,
        command: Command::CreateTenant {
            name: name.to_owned(),
        },
    };
    let at = |index| LogPosition { term: 1, index };
    let first = bench.state.apply(at(10), &proposal(5, "a"));
    assert_eq!(bench.state.apply(at(11), &proposal(5, "a")), first);
    assert_eq!(
        bench.state.apply(at(12), &proposal(6, "b")),
        Reply::Tenant(TenantId(2))
    );
    let stale = bench.state.apply(at(13), &proposal(5, "a"));
    assert!(matches!(
        stale,
        Reply::Refused(Refusal::StaleSerial { newest: 6, .. })
    ));
}

#[test]
fn the_longest_silent_proposer_is_forgotten_first() {
    let mut state = State::default();
    for client in 0..=CLIENTS_MAX as u128 {
        let proposal = Proposal {
            client,
            serial: 1,
            leader_elapsed_ms: 0,
            command: Command::Tick,
        };
        let index = 1 + client as u64;
        state.apply(LogPosition { term: 1, index }, &proposal);
    }
    assert_eq!(state.clients.len(), CLIENTS_MAX);
    assert!(!state.clients.contains_key(&0));
    assert!(state.clients.contains_key(&1));
}

#[test]
fn members_are_added_updated_drained_and_removed_for_good() {
    let mut bench = Bench::with_members(2);
    let mut newer = description("n2", 2);
    newer.version = "0.2.0".to_owned();
    newer.lineage = LineageId(55);
    bench.done(Command::AddMember {
        node: NodeId(2),
        description: newer,
    });
    let member = bench.state.member(NodeId(2)).unwrap();
    assert_eq!(member.description.version, "0.2.0");
    assert_eq!(
        member.lineage,
        LineageId(2),
        "only recorded amnesia changes it"
    );
    let draining = |draining| Command::SetDraining {
        node: NodeId(2),
        draining,
    };
    bench.done(draining(true));
    assert_eq!(
        bench.state.member(NodeId(2)).unwrap().state,
        MemberState::Draining
    );
    bench.done(Command::RemoveMember { node: NodeId(2) });
    assert!(matches!(
        bench.refused(draining(false)),
        Refusal::MemberRemoved { .. }
    ));
    let again = Command::AddMember {
        node: NodeId(2),
        description: description("n2", 9),
    };
    assert!(matches!(
        bench.refused(again),
        Refusal::MemberRemoved { .. }
    ));
}

#[test]
fn limits_change_if_they_are_as_they_were_read() {
    let mut bench = Bench::with_members(1);
    let created = bench.apply(Command::CreateTenant {
        name: "t".to_owned(),
    });
    let Reply::Tenant(tenant) = created else {
        panic!("{created:?}");
    };
    let change = |expected: Option<&str>, limits: &str| Command::ChangeLimits {
        tenant,
        expected: expected.map(str::to_owned),
        limits: Some(limits.to_owned()),
    };
    bench.done(change(None, "a"));
    for stale in [None, Some("b")] {
        let refusal = bench.refused(change(stale, "c"));
        assert!(matches!(refusal, Refusal::ConditionFailed { .. }));
    }
    bench.done(change(Some("a"), "b"));
    let limits = bench.state.tenant(tenant).unwrap().limits.clone();
    assert_eq!(limits.as_deref(), Some("b"));
}

#[test]
fn the_format_level_is_what_all_members_read() {
    let mut bench = Bench::with_members(2);
    let raise = Command::RaiseFormatLevel { level: 2 };
    assert!(matches!(
        bench.refused(raise.clone()),
        Refusal::FormatLevel { .. }
    ));
    for node in 1..=2 {
        let newer = MemberDescription {
            format_level_max: 2,
            ..description(&format!("n{node}"), node)
        };
        bench.done(Command::AddMember {
            node: NodeId(node),
            description: newer,
        });
    }
    bench.done(raise);
    assert_eq!(bench.state.format_level(), 2);
    let older = Command::AddMember {
        node: NodeId(2),
        description: description("n2", 2),
    };
    assert!(matches!(
        bench.refused(older),
        Refusal::FormatLevel { level_max: 1, .. }
    ));
}

#[test]
fn a_newer_namesake_supersedes() {
    let mut bench = Bench::with_members(2);
    bench.done(Command::AddMember {
        node: NodeId(3),
        description: description("n1", 3),
    });
    assert_eq!(
        bench.state.member(NodeId(1)).unwrap().superseded_by,
        Some(NodeId(3))
    );
    assert_eq!(bench.state.member_by_name("n1").unwrap().node, NodeId(3));
}

#[test]
fn an_owner_cannot_be_removed() {
    let mut bench = Bench::with_placement(2, &[&[1, 2]]);
    let refusal = bench.refused(Command::RemoveMember { node: NodeId(1) });
    assert!(matches!(refusal, Refusal::StillOwner { shards: 1, .. }));
}

#[test]
fn placement_is_made_once_of_active_members() {
    let mut bench = Bench::with_members(3);
    let make = |sets: &[&[u64]]| Command::CreatePlacement {
        owners: sets.iter().map(|set| owners(set)).collect(),
    };
    assert!(matches!(
        bench.refused(make(&[&[1], &[1], &[1]])),
        Refusal::PlacementMalformed { .. }
    ));
    assert!(matches!(
        bench.refused(make(&[&[]])),
        Refusal::PlacementMalformed { .. }
    ));
    assert!(matches!(
        bench.refused(make(&[&[1, 4]])),
        Refusal::NotMember { .. }
    ));
    bench.done(make(&[&[1, 2, 3], &[1, 2, 3]]));
    let entry = bench.shard(1);
    assert!(entry.owners.values().all(|record| record.born_serving));
    assert_eq!(entry.owners[&NodeId(2)].lineage, LineageId(2));
    assert!(matches!(
        bench.refused(make(&[&[1]])),
        Refusal::PlacementExists
    ));
}

#[test]
fn a_joint_change_is_completed_or_abandoned() {
    let mut bench = Bench::with_placement(4, &[&[1, 2, 3], &[1, 2, 3]]);
    bench.done(change(0, 1, &[1, 2, 3], &[1, 2, 4]));
    let newcomer = bench.shard(0).owners[&NodeId(4)];
    assert_eq!(newcomer.counts_from, ConfigurationNumber(2));
    assert!(!newcomer.born_serving);
    bench.done(change(0, 2, &[1, 2, 4], &[1, 2, 4]));
    assert!(!bench.shard(0).owners.contains_key(&NodeId(3)));
    assert!(bench.shard(0).owners[&NodeId(1)].born_serving);

    bench.done(change(1, 1, &[1, 2, 3], &[1, 2, 4]));
    bench.done(change(1, 2, &[1, 2, 3], &[1, 2, 3]));
    assert!(!bench.shard(1).owners.contains_key(&NodeId(4)));
    assert_eq!(bench.shard(1).configuration.number, ConfigurationNumber(3));
}

#[test]
fn wrong_steps_are_refused() {
    let mut bench = Bench::with_placement(5, &[&[1, 2, 3]]);
    let moved = bench.refused(change(0, 9, &[1, 2, 3], &[1, 2, 4]));
    assert!(matches!(moved, Refusal::ConfigurationMoved { .. }));
    assert!(matches!(
        bench.refused(change(3, 1, &[1], &[2])),
        Refusal::UnknownShard { .. }
    ));
    let steps = [
        change(0, 1, &[1, 2], &[1, 2, 4]),
        change(0, 1, &[1, 2, 3], &[1, 2, 3]),
        change(0, 1, &[1, 2, 3], &[]),
        change(0, 1, &[1, 2, 4], &[1, 2, 4]),
    ];
    for step in steps {
        assert!(matches!(
            bench.refused(step),
            Refusal::ConfigurationStep { .. }
        ));
    }
    bench.done(change(0, 1, &[1, 2, 3], &[1, 2, 4]));
    for step in [
        change(0, 2, &[1, 2, 4], &[1, 2, 5]),
        change(0, 2, &[1, 2, 3], &[1, 2, 5]),
        change(0, 2, &[1, 2, 5], &[1, 2, 5]),
    ] {
        assert!(matches!(
            bench.refused(step),
            Refusal::ConfigurationStep { .. }
        ));
    }
    bench.done(Command::SetDraining {
        node: NodeId(5),
        draining: true,
    });
    bench.done(change(0, 2, &[1, 2, 3], &[1, 2, 3]));
    let draining = bench.refused(change(0, 3, &[1, 2, 3], &[1, 2, 5]));
    assert!(matches!(draining, Refusal::MemberDraining { .. }));
}

#[test]
fn one_wrong_step_refuses_the_whole_command() {
    let mut bench = Bench::with_placement(4, &[&[1, 2, 3], &[1, 2, 3]]);
    let step = |shard, expected| ConfigurationChange {
        shard: ShardId(shard),
        expected: ConfigurationNumber(expected),
        old: owners(&[1, 2, 3]),
        new: owners(&[1, 2, 4]),
    };
    bench.refused(Command::SetConfigurations {
        changes: vec![step(0, 1), step(1, 2)],
    });
    bench.refused(Command::SetConfigurations {
        changes: vec![step(0, 1), step(0, 1)],
    });
}

#[test]
fn amnesia_raises_the_number_of_each_shard_once() {
    let mut bench = Bench::with_placement(4, &[&[1, 2, 3], &[2, 3, 4]]);
    bench.done(change(1, 1, &[2, 3, 4], &[1, 2, 3]));
    for _ in 0..2 {
        bench.done(amnesia(1, 77));
        assert_eq!(bench.shard(0).configuration.number, ConfigurationNumber(2));
        assert_eq!(bench.shard(1).configuration.number, ConfigurationNumber(3));
    }
    let record = bench.shard(1).owners[&NodeId(1)];
    assert_eq!(record.lineage, LineageId(77));
    assert_eq!(record.counts_from, ConfigurationNumber(3));
    assert!(bench.shard(1).configuration.is_joint());
    assert!(
        bench.shard(0).owners[&NodeId(2)].born_serving,
        "the others are untouched"
    );
    assert_eq!(
        bench.state.member(NodeId(1)).unwrap().lineage,
        LineageId(77)
    );
}

#[test]
fn amnesia_of_some_shards_leaves_the_others() {
    let mut bench = Bench::with_placement(3, &[&[1, 2, 3], &[1, 2, 3]]);
    bench.done(Command::RecordAmnesia {
        node: NodeId(1),
        shards: Some([ShardId(1)].into_iter().collect::<ShardSet>()),
        lineage: LineageId(88),
    });
    assert_eq!(bench.shard(0).configuration.number, ConfigurationNumber(1));
    assert_eq!(bench.shard(1).configuration.number, ConfigurationNumber(2));
    assert_eq!(bench.state.member(NodeId(1)).unwrap().lineage, LineageId(1));
}

#[test]
fn tenants_get_ids_once() {
    let mut bench = Bench::with_members(1);
    let create = |name: &str| Command::CreateTenant {
        name: name.to_owned(),
    };
    assert_eq!(bench.apply(create("anonymous")), Reply::Tenant(TenantId(0)));
    assert_eq!(bench.apply(create("a")), Reply::Tenant(TenantId(1)));
    assert_eq!(bench.apply(create("b")), Reply::Tenant(TenantId(2)));
    assert_eq!(bench.apply(create("a")), Reply::Tenant(TenantId(1)));
    assert!(matches!(bench.refused(create("")), Refusal::Invalid { .. }));
}

#[test]
fn retention_only_advances() {
    let mut bench = Bench::with_members(1);
    let advance = |before| Command::AdvanceRetention {
        tenant: TenantId(0),
        signal: Signal::Metrics,
        selector: String::new(),
        before,
    };
    assert_eq!(bench.apply(advance(100)), Reply::Retention(1));
    assert_eq!(bench.apply(advance(50)), Reply::Retention(1));
    assert_eq!(bench.apply(advance(150)), Reply::Retention(2));
    assert_eq!(
        bench.state.tenant(TenantId(0)).unwrap().cut_offs[0].before,
        150
    );
}

#[test]
fn cut_offs_of_selectors_that_the_whole_one_has_reached_are_forgotten() {
    let mut bench = Bench::with_members(1);
    let mut advance = |selector: &str, before| {
        let command = Command::AdvanceRetention {
            tenant: TenantId(0),
            signal: Signal::Metrics,
            selector: selector.to_owned(),
            before,
        };
        bench.apply(command);
        let tenant = bench.state.tenant(TenantId(0)).unwrap();
        let left = tenant.cut_offs.iter().map(|cut| cut.selector.clone());
        (left.collect::<Vec<_>>(), tenant.retention_number)
    };
    advance("a", 100);
    advance("b", 200);
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(advance("", 99), (all(&["a", "b", ""]), 3));
    assert_eq!(advance("", 100), (all(&["b", ""]), 4));
    assert_eq!(advance("", 300), (all(&[""]), 5));
}

#[test]
fn a_deletion_is_forgotten_when_all_owners_confirmed_it_and_the_older_ones() {
    let mut bench = Bench::with_placement(3, &[&[1, 2]]);
    let delete = || Command::CreateDeletion {
        tenant: TenantId(0),
        signal: Signal::Metrics,
        selector: "{a=\"b\"}".to_owned(),
        range: TimeRange { start: 0, end: 10 },
    };
    let confirm = |node, up_to| Command::ConfirmDeletions {
        node: NodeId(node),
        tenant: TenantId(0),
        up_to: DeletionVersion(up_to),
    };
    assert_eq!(bench.apply(delete()), Reply::Deletion(DeletionVersion(1)));
    assert_eq!(bench.apply(delete()), Reply::Deletion(DeletionVersion(2)));
    bench.done(confirm(1, 2));
    assert_eq!(bench.state.deletions(TenantId(0)).count(), 2);
    bench.done(change(0, 1, &[1, 2], &[1, 3]));
    bench.done(confirm(2, 1));
    assert_eq!(
        bench.state.deletions(TenantId(0)).count(),
        2,
        "a new owner confirms too"
    );
    bench.done(confirm(3, 2));
    assert_eq!(
        bench.state.tenant(TenantId(0)).unwrap().deletions_forgotten,
        DeletionVersion(1)
    );
    bench.done(change(0, 2, &[1, 3], &[1, 3]));
    let tenant = bench.state.tenant(TenantId(0)).unwrap();
    assert_eq!(
        tenant.deletions_forgotten,
        DeletionVersion(2),
        "a former owner need not"
    );
    assert_eq!(bench.apply(delete()), Reply::Deletion(DeletionVersion(3)));
}

#[test]
fn writes_are_conditional_and_versions_never_return() {
    let mut bench = Bench::with_members(1);
    let put = |conditions| Command::Write {
        conditions,
        changes: vec![Change::Put {
            key: "k".to_owned(),
            value: vec![1],
        }],
    };
    let absent = || {
        vec![Condition::Absent {
            key: "k".to_owned(),
        }]
    };
    let Reply::Written { version } = bench.apply(put(absent())) else {
        panic!("not written");
    };
    let refusal = bench.refused(put(absent()));
    assert_eq!(
        refusal,
        Refusal::ConditionFailed {
            position: 0,
            present: Some(version)
        }
    );
    bench.apply(Command::Write {
        conditions: Vec::new(),
        changes: vec![Change::Delete {
            key: "k".to_owned(),
        }],
    });
    bench.apply(put(absent()));
    let stale = vec![Condition::Version {
        key: "k".to_owned(),
        version,
    }];
    bench.refused(put(stale));
    assert_eq!(bench.state.values_with_prefix("k").count(), 1);
    assert_eq!(bench.state.values_with_prefix("l").count(), 0);
}

#[test]
fn a_lease_passes_on_only_after_its_whole_term() {
    let mut bench = Bench::with_members(2);
    let acquire = |node| Command::AcquireLease {
        name: "rules".to_owned(),
        holder: NodeId(node),
        incarnation: Incarnation(node.into()),
        term_ms: 1000,
    };
    let Reply::Lease { fencing } = bench.apply(acquire(1)) else {
        panic!("not granted");
    };
    bench.elapsed_ms = 900;
    assert_eq!(bench.apply(acquire(1)), Reply::Lease { fencing }, "renewed");
    bench.elapsed_ms = 1800;
    bench.refused(acquire(2));
    bench.term = 2;
    bench.elapsed_ms = 50_000;
    bench.refused(acquire(2));
    bench.elapsed_ms = 50_100;
    let effect = |fencing| Command::Write {
        conditions: vec![Condition::Lease {
            name: "rules".to_owned(),
            fencing,
        }],
        changes: Vec::new(),
    };
    let Reply::Lease { fencing: next } = bench.apply(acquire(2)) else {
        panic!("not granted after the term");
    };
    assert!(next > fencing);
    bench.refused(effect(fencing));
    assert!(matches!(bench.apply(effect(next)), Reply::Written { .. }));
    bench.done(Command::ReleaseLease {
        name: "rules".to_owned(),
        fencing: next,
    });
    assert_eq!(bench.state.lease_remaining_ms("rules"), 0);
}

#[test]
fn rows_rebuild_the_state() {
    let mut bench = Bench::with_placement(4, &[&[1, 2, 3], &[1, 2, 3]]);
    bench.apply(Command::CreateTenant {
        name: "t".to_owned(),
    });
    let before = bench.state.clone();
    bench.done(change(0, 1, &[1, 2, 3], &[1, 2, 4]));
    bench.apply(Command::Write {
        conditions: Vec::new(),
        changes: vec![Change::Put {
            key: "k".to_owned(),
            value: vec![7],
        }],
    });
    let mut rows: std::collections::BTreeMap<Vec<u8>, Vec<u8>> =
        rows::all(&before).unwrap().into_iter().collect();
    for (key, value) in rows::changes(&before, &bench.state).unwrap() {
        match value {
            Some(value) => rows.insert(key, value),
            None => rows.remove(&key),
        };
    }
    let mut rebuild = rows::Rebuild::default();
    for (key, value) in &rows {
        rebuild.row(key, value).unwrap();
    }
    assert_eq!(rebuild.finish(bench.state.applied).unwrap(), bench.state);
}

/// A noted movement of shards from node 1 to node 4.
fn begin_movement(bench: &mut Bench, shards: &[u16]) -> u64 {
    let noted = bench.apply(Command::BeginMovement {
        reason: "drain".to_owned(),
        shards: shards.iter().copied().map(ShardId).collect(),
        incoming: vec![NodeId(4)],
        outgoing: vec![NodeId(1)],
        at: 1,
    });
    match noted {
        Reply::Movement(number) => number,
        other => panic!("{other:?}"),
    }
}

#[test]
fn movements_whose_end_nobody_noted_are_found_by_the_placement() {
    let (before, after): (&[u64], &[u64]) = (&[1, 2, 3], &[2, 3, 4]);
    let mut bench = Bench::with_placement(4, &[before; 4]);
    for shard in 0..4 {
        bench.done(change(shard, 1, before, after));
    }
    let first = begin_movement(&mut bench, &[0, 1]);
    let second = begin_movement(&mut bench, &[2, 3]);
    assert_eq!(bench.state.movements_over(), []);
    // It ends shard by shard: it is under way until the last.
    bench.done(change(0, 2, after, after));
    assert_eq!(bench.state.movements_over(), []);
    bench.done(change(1, 2, after, after));
    let over = [(first, MovementOutcome::Completed)];
    assert_eq!(bench.state.movements_over(), over);
    // One shard of the other is taken back.
    bench.done(change(2, 2, after, after));
    bench.done(change(3, 2, before, before));
    let over = bench.state.movements_over();
    assert_eq!(
        over.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [first, second]
    );
    assert!(matches!(over[1].1, MovementOutcome::Abandoned { .. }));
    // It begins again, and is noted again: the older note of the same shard is over all the same.
    bench.done(change(3, 3, before, after));
    let third = begin_movement(&mut bench, &[3]);
    let numbers = |bench: &Bench| -> Vec<u64> {
        let over = bench.state.movements_over().into_iter();
        over.map(|(number, _)| number).collect()
    };
    assert_eq!(numbers(&bench), [first, second]);
    for (movement, outcome) in bench.state.movements_over() {
        bench.done(Command::FinishMovement {
            movement,
            outcome,
            at: 2,
        });
    }
    assert_eq!(numbers(&bench), [0; 0]);
    bench.done(change(3, 4, after, after));
    assert_eq!(numbers(&bench), [third]);
}
