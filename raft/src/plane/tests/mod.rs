//! Planes in a cluster: leaders fail, links break, machines crash, nodes come and go.

mod cluster;
mod standing;

use crate::state::{Change, Command, Condition, Refusal, Reply};
use crate::{BootstrapSettings, MetadataError, Role, recovery};
use cluster::{CLUSTER, Cluster, PATIENCE, create_tenant, eventually, fixed, state_where};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use trefoil_model::NodeId;
use trefoil_store_pages::{CrashLoss, Disk};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_commands_and_reads_what_was_acknowledged() {
    let cluster = Cluster::begin(3, |_| ()).await;
    for (position, plane) in cluster.planes().iter().enumerate() {
        create_tenant(plane, &format!("t{position}")).await.unwrap();
        for reader in cluster.planes() {
            let state = reader.read_linearizable().await.unwrap();
            assert!(state.tenant_id(&format!("t{position}")).is_some());
            assert_eq!(state.cluster(), Some(CLUSTER));
        }
    }
    let status = cluster.planes()[0].status();
    assert_eq!(
        status.voters,
        cluster.nodes().into_iter().collect::<BTreeSet<_>>()
    );
    assert_eq!(status.leader, Some(cluster.leader().await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_command_is_an_error() {
    let cluster = Cluster::begin(1, |_| ()).await;
    let refused = create_tenant(&cluster.planes()[0], "").await;
    assert!(matches!(
        refused,
        Err(MetadataError::Refused(Refusal::Invalid { .. }))
    ));
    let huge = Command::SetLimits {
        tenant: trefoil_model::TenantId(0),
        limits: Some("x".repeat(5 << 20)),
    };
    let too_large = cluster.planes()[0].propose(huge).await;
    assert!(matches!(too_large, Err(MetadataError::TooLarge { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let cluster = Cluster::begin(3, |_| ()).await;
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let leader = cluster.leader().await;
        let name = format!("before-{round}");
        create_tenant(&cluster.plane(leader), &name).await.unwrap();
        acknowledged.push(name);
        cluster.crash(leader, CrashLoss::Dice).await;
        let survivor = cluster.planes()[0].clone();
        let name = format!("after-{round}");
        create_tenant(&survivor, &name).await.unwrap();
        acknowledged.push(name);
        cluster.start(leader).await.unwrap();
        let restarted = cluster.plane(leader).read_linearizable().await.unwrap();
        for name in &acknowledged {
            assert!(restarted.tenant_id(name).is_some(), "{name} is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_neither_commits_nor_reads() {
    let cluster = Cluster::begin(3, |options| {
        options.propose_deadline = Duration::from_secs(4);
        options.read_deadline = Duration::from_secs(2);
    })
    .await;
    let alone = cluster.leader().await;
    let rest: Vec<NodeId> = cluster
        .nodes()
        .into_iter()
        .filter(|node| *node != alone)
        .collect();
    cluster.cut(&[alone], &rest);
    let isolated = cluster.plane(alone);
    let (read, proposed) = tokio::join!(
        isolated.read_linearizable(),
        create_tenant(&isolated, "minority")
    );
    assert!(
        matches!(read, Err(MetadataError::NoLeader { .. })),
        "{read:?}"
    );
    assert!(
        matches!(proposed, Err(MetadataError::NoLeader { .. })),
        "{proposed:?}"
    );
    // For people: ids of voters and types of the library say nothing.
    let reason = read.err().map(|error| error.to_string());
    assert!(reason.is_some_and(|reason| !reason.contains("EmptyNode")));
    assert_eq!(isolated.status().leader, None, "it leads nobody");
    let majority = cluster.plane(rest[0]);
    create_tenant(&majority, "majority").await.unwrap();
    cluster.heal();
    let state = cluster.plane(alone).read_linearizable().await.unwrap();
    assert!(state.tenant_id("majority").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_messages_cost_time_but_commands_have_one_effect() {
    let cluster = Cluster::begin(3, |_| ()).await;
    cluster.lose_one_of(7);
    let increments = 40u64;
    let planes = cluster.planes();
    for step in 0..increments {
        let plane = &planes[step as usize % planes.len()];
        increment(plane).await;
    }
    cluster.heal();
    let state = planes[0].read_linearizable().await.unwrap();
    let value = state.value("counter").unwrap();
    assert_eq!(value.bytes, increments.to_le_bytes());
}

/// Adds one to a counter. A version that another increment took is a programming error here,
/// because increments follow one another; a repeated effect would show as one.
async fn increment(plane: &crate::MetadataPlane) {
    let state = plane.read_linearizable().await.unwrap();
    let key = "counter".to_owned();
    let (condition, count) = match state.value(&key) {
        None => (Condition::Absent { key: key.clone() }, 0u64),
        Some(value) => {
            let count = value
                .bytes
                .as_slice()
                .try_into()
                .map(u64::from_le_bytes)
                .unwrap();
            let version = value.version;
            (
                Condition::Version {
                    key: key.clone(),
                    version,
                },
                count,
            )
        }
    };
    let write = Command::Write {
        conditions: vec![condition],
        changes: vec![Change::Put {
            key,
            value: (count + 1).to_le_bytes().to_vec(),
        }],
    };
    assert!(matches!(
        plane.propose(write).await,
        Ok(Reply::Written { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_share_entries_and_reads_share_questions() {
    let cluster = Cluster::begin(3, |_| ()).await;
    let plane = cluster.planes()[0].clone();
    let before = plane.read_linearizable().await.unwrap().applied().index;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..200 {
        let plane = plane.clone();
        tasks.spawn(async move {
            create_tenant(&plane, &format!("t{index}")).await.unwrap();
            let state = plane.read_linearizable().await.unwrap();
            assert!(state.tenant_id(&format!("t{index}")).is_some());
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let entries = plane.state().applied().index - before;
    assert!(entries < 200, "{entries} entries for 200 commands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_of_all_loses_nothing_acknowledged() {
    let cluster = Cluster::begin(3, |options| {
        options.snapshot_entries = 20;
        options.entries_kept = 5;
    })
    .await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        for step in 0..15 {
            let name = format!("t{round}-{step}");
            let planes = cluster.planes();
            create_tenant(&planes[step % planes.len()], &name)
                .await
                .unwrap();
            acknowledged.push(name);
        }
        for node in cluster.nodes() {
            cluster.machine(node).disk.crash(CrashLoss::Dice);
        }
        for node in cluster.nodes() {
            cluster.stop(node).await;
        }
        for node in cluster.nodes() {
            cluster.start(node).await.unwrap();
        }
        let state = cluster.planes()[0].read_linearizable().await.unwrap();
        for name in &acknowledged {
            assert!(state.tenant_id(name).is_some(), "{name} is lost");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_goes_on_after_its_restart_does_not_read_the_past() {
    // The hint of what is committed is not synced by itself, so a power cut takes the leader back to
    // an older one, while its vote lets it go on leading at once.
    let cluster = Cluster::begin(3, |options| {
        options.read_deadline = Duration::from_secs(2);
    })
    .await;
    let leader = cluster.leader().await;
    create_tenant(&cluster.plane(leader), "t").await.unwrap();
    let bare = &cluster.net.only_bare_heartbeats;
    bare.store(true, Ordering::Relaxed);
    let begun = tokio::time::Instant::now();
    cluster.crash(leader, CrashLoss::Everything).await;
    cluster.start(leader).await.unwrap();
    // Until it knows how far its followers are it can only say that it does not know.
    let seen = |state: &crate::State| state.tenant_id("t").is_some();
    match cluster.plane(leader).read_linearizable().await {
        Ok(state) => assert!(seen(&state), "what was acknowledged is not seen"),
        Err(error) => assert!(matches!(error, MetadataError::NoLeader { .. }), "{error}"),
    }
    bare.store(false, Ordering::Relaxed);
    // The others may have asked for votes meanwhile; somebody leads soon.
    let plane = cluster.plane(leader);
    let state = loop {
        match plane.read_linearizable().await {
            Ok(state) => break state,
            Err(MetadataError::NoLeader { .. }) if begun.elapsed() < PATIENCE => {}
            Err(error) => panic!("{error}"),
        }
    };
    assert!(seen(&state));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_knows_when_it_has_caught_up() {
    let cluster = Cluster::begin(3, |options| {
        options.read_deadline = Duration::from_secs(2);
    })
    .await;
    let leader = cluster.leader().await;
    let rest: Vec<NodeId> = cluster
        .nodes()
        .into_iter()
        .filter(|node| *node != leader)
        .collect();
    let (away, stays) = (rest[0], rest[1]);
    for node in cluster.nodes() {
        let mut caught_up = cluster.plane(node).caught_up();
        caught_up.wait_for(|caught_up| *caught_up).await.unwrap();
    }
    create_tenant(&cluster.plane(leader), "t").await.unwrap();
    cluster.crash(away, CrashLoss::Everything).await;
    cluster.cut(&[away], &[leader, stays]);
    cluster.start(away).await.unwrap();
    let restarted = cluster.plane(away);
    let alone = restarted.catch_up().await;
    assert!(
        matches!(alone, Err(MetadataError::NoLeader { .. })),
        "{alone:?}"
    );
    assert!(!*restarted.caught_up().borrow());

    // Whoever runs on without a majority stays caught up.
    cluster.stop(leader).await;
    assert!(cluster.plane(stays).catch_up().await.is_ok());

    cluster.start(leader).await.unwrap();
    cluster.heal();
    let mut caught_up = restarted.caught_up();
    caught_up.wait_for(|caught_up| *caught_up).await.unwrap();
    assert!(restarted.state().tenant_id("t").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_long_gets_a_snapshot() {
    let cluster = Cluster::begin(3, |options| {
        options.snapshot_entries = 10;
        options.entries_kept = 2;
    })
    .await;
    let leader = cluster.leader().await;
    let away = cluster
        .nodes()
        .into_iter()
        .find(|node| *node != leader)
        .unwrap();
    cluster.crash(away, CrashLoss::Dice).await;
    let plane = cluster.plane(leader);
    for step in 0..60 {
        create_tenant(&plane, &format!("t{step}")).await.unwrap();
    }
    let sent_before = cluster.net.snapshot_chunks.load(Ordering::Relaxed);
    cluster.start(away).await.unwrap();
    let state = cluster.plane(away).read_linearizable().await.unwrap();
    assert!(state.tenant_id("t0").is_some() && state.tenant_id("t59").is_some());
    assert!(cluster.net.snapshot_chunks.load(Ordering::Relaxed) > sent_before);
    cluster.crash(away, CrashLoss::Dice).await;
    cluster.start(away).await.unwrap();
    let again = cluster.plane(away).read_linearizable().await.unwrap();
    assert!(again.tenant_id("t0").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_node_becomes_a_learner_and_a_lost_voter_is_replaced() {
    let mut cluster = Cluster::begin(3, |options| {
        options.replace_after = Duration::from_millis(200);
    })
    .await;
    let newcomer = cluster.add_machine().await;
    cluster.everybody_sees_all();
    let description = cluster.description(newcomer);
    let plane = cluster.plane(newcomer);
    plane.join(cluster.nodes()[0], description).await.unwrap();
    state_where(&plane, "the newcomer's own record", |state| {
        state.member(newcomer).is_some()
    })
    .await;
    let follows = || plane.status().learners.contains(&newcomer);
    eventually("a place as learner", || follows().then_some(())).await;
    plane.read_linearizable().await.unwrap();

    let leader = cluster.leader().await;
    let lost = cluster
        .nodes()
        .into_iter()
        .find(|node| *node != leader && *node != newcomer)
        .unwrap();
    cluster.crash(lost, CrashLoss::Everything).await;
    let alive: Vec<NodeId> = cluster
        .nodes()
        .into_iter()
        .filter(|node| *node != lost)
        .collect();
    cluster.everybody_sees(&alive);
    let expected: BTreeSet<NodeId> = alive.into_iter().collect();
    eventually("the replacement", || {
        (plane.status().voters == expected).then_some(())
    })
    .await;
    create_tenant(&plane, "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_voters_that_nobody_ends_is_ended_by_the_leader() {
    let mut cluster = Cluster::begin(3, |_| ()).await;
    let newcomer = cluster.add_machine().await;
    cluster.everybody_sees_all();
    let description = cluster.description(newcomer);
    let plane = cluster.plane(newcomer);
    plane.join(cluster.nodes()[0], description).await.unwrap();
    let follows = || plane.status().learners.contains(&newcomer);
    eventually("a place as learner", || follows().then_some(())).await;

    let leader = cluster.plane(cluster.leader().await);
    let voters = leader.status().voters;
    let leaves = *voters.iter().find(|node| **node != leader.node()).unwrap();
    let expected: BTreeSet<NodeId> = voters
        .into_iter()
        .filter(|node| *node != leaves)
        .chain([newcomer])
        .collect();
    let raft = leader.inner.raft.clone();
    let mut metrics = raft.metrics();
    let both = metrics.wait_for(|metrics| {
        let membership = metrics.membership_config.membership();
        membership.get_joint_config().len() > 1
    });
    let change = raft.change_membership(
        expected.iter().map(|node| node.0).collect::<BTreeSet<_>>(),
        true,
    );
    tokio::select! {
        biased;
        begun = both => assert!(begun.is_ok()),
        ended = change => panic!("both halves were written: {ended:?}"),
    }
    // Whoever asked for the change is gone between its halves.
    eventually("the second half", || {
        (leader.status().voters == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_vote_is_gone_does_not_come_back() {
    let cluster = Cluster::begin(3, |_| ()).await;
    let victim = cluster.nodes()[0];
    cluster.stop(victim).await;
    let disk = &cluster.machine(victim).disk;
    let log_files = disk
        .files()
        .into_iter()
        .filter(|(path, _)| path.starts_with("/meta/raft-log"));
    for (path, _) in log_files {
        trefoil_store_pages::Disk::remove(disk, &path).unwrap();
    }
    let refused = cluster.start(victim).await;
    assert!(matches!(refused, Err(MetadataError::Damaged { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_disk_stops_the_node_and_the_others_go_on() {
    let cluster = Cluster::begin(3, |_| ()).await;
    let leader = cluster.leader().await;
    cluster.machine(leader).disk.fail_sync(1);
    let other = cluster
        .planes()
        .into_iter()
        .find(|plane| plane.node() != leader)
        .unwrap();
    create_tenant(&other, "t").await.unwrap();
    let failed = cluster.plane(leader);
    let noticed = tokio::time::timeout(PATIENCE, failed.failed()).await;
    assert!(matches!(noticed, Ok(MetadataError::Stopped { .. })));
    assert_eq!(failed.status().role, Role::Stopped);
    let stopped = create_tenant(&failed, "u").await;
    assert!(stopped.is_ok() || matches!(stopped, Err(MetadataError::Stopped { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_that_see_one_another_form_a_cluster_and_a_fourth_joins() {
    let mut cluster = Cluster::empty(|_| ());
    for _ in 0..3 {
        cluster.add_machine().await;
    }
    let founders = cluster.nodes();
    cluster.everybody_sees_all();
    cluster.lose_one_of(5);
    let formed = cluster.form(&founders, 3).await;
    cluster.heal();
    assert!(formed.iter().all(|id| *id == formed[0]));
    let fourth = cluster.add_machine().await;
    cluster.everybody_sees_all();
    let joined = cluster.form(&[fourth], 3).await;
    assert_eq!(joined[0], formed[0]);
    let state = cluster.plane(fourth).read_linearizable().await.unwrap();
    assert_eq!(state.members().count(), 4);
    for node in cluster.nodes() {
        cluster.crash(node, CrashLoss::Dice).await;
        cluster.start(node).await.unwrap();
    }
    let again = cluster.form(&cluster.nodes(), 3).await;
    assert!(again.iter().all(|id| *id == formed[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_joins_as_a_new_one() {
    let mut cluster = Cluster::empty(|_| ());
    for _ in 0..3 {
        cluster.add_machine().await;
    }
    cluster.everybody_sees_all();
    let founders = cluster.nodes();
    let formed = cluster.form(&founders, 3).await;
    cluster.stop(founders[0]).await;
    let reborn = cluster.add_machine().await;
    cluster.everybody_sees(&[founders[1], founders[2], reborn]);
    let plane = cluster.plane(reborn);
    let mut description = cluster.description(reborn);
    description.name = format!("n-{}", founders[0]);
    let settings = BootstrapSettings {
        expect: 3,
        seed_addresses: 3,
    };
    // While others still see the old one, its name is taken.
    cluster.everybody_sees_all();
    let (forming, asked) = (plane.clone(), description.clone());
    let early = tokio::spawn(async move { forming.form(fixed(settings), asked).await });
    eventually("the refusal", || {
        let reason = plane.forming_reason()?;
        reason.contains("is alive").then_some(())
    })
    .await;
    early.abort();
    cluster.everybody_sees(&[founders[1], founders[2], reborn]);
    assert_eq!(
        plane.form(fixed(settings), description).await.unwrap(),
        formed[0]
    );
    let old = plane.state().member(founders[0]).cloned().unwrap();
    assert_eq!(old.superseded_by, Some(reborn));
    // Its namesake is there, so nobody waits for `replace_after`.
    let expected: BTreeSet<NodeId> = [founders[1], founders[2], reborn].into();
    eventually("the replacement", || {
        (plane.status().voters == expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_of_three_wait() {
    let mut cluster = Cluster::empty(|_| ());
    cluster.add_machine().await;
    cluster.add_machine().await;
    cluster.everybody_sees_all();
    let plane = cluster.plane(cluster.nodes()[0]);
    let description = cluster.description(plane.node());
    let settings = BootstrapSettings {
        expect: 3,
        seed_addresses: 3,
    };
    let forming = plane.clone();
    let task = tokio::spawn(async move { forming.form(fixed(settings), description).await });
    let waits = || {
        plane
            .forming_reason()
            .filter(|reason| reason.contains("of 3 nodes"))
    };
    eventually("the reason", waits).await;
    task.abort();
    assert_eq!(plane.cluster(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plane_starts_on_a_full_disk_when_there_is_space() {
    let cluster = Cluster::begin(3, |_| ()).await;
    create_tenant(&cluster.planes()[0], "t").await.unwrap();
    let node = cluster.nodes()[1];
    cluster.stop(node).await;
    let disk = cluster.machine(node).disk.clone();
    let used: u64 = disk.files().iter().map(|(_, bytes)| bytes).sum();
    disk.set_capacity(used);
    let starting = cluster.start(node);
    tokio::pin!(starting);
    let early = tokio::time::timeout(Duration::from_millis(700), &mut starting).await;
    assert!(early.is_err(), "there is no space for a copy of the log");
    disk.set_capacity(u64::MAX);
    let started = tokio::time::timeout(PATIENCE, starting).await;
    started.expect("it goes on").unwrap();
    let plane = cluster.plane(node);
    let known = eventually("what was decided", || {
        plane.state().tenant_id("t").is_some().then_some(())
    });
    known.await;
}

/// Behind one name with all addresses: those of nodes that are going away count until they are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_founds_when_the_seeds_lead_to_fewer_addresses_than_at_first() {
    let mut cluster = Cluster::empty(|_| ());
    for _ in 0..3 {
        cluster.add_machine().await;
    }
    cluster.everybody_sees_all();
    let settings = |seed_addresses| BootstrapSettings {
        expect: 3,
        seed_addresses,
    };
    let (counted, at_first) = tokio::sync::watch::channel(settings(6));
    let nodes = cluster.nodes();
    let mut forming = Vec::new();
    for node in &nodes {
        let (plane, description) = (cluster.plane(*node), cluster.description(*node));
        let at_first = at_first.clone();
        forming.push(tokio::spawn(async move {
            plane.form(at_first, description).await.unwrap()
        }));
    }
    for node in &nodes {
        let plane = cluster.plane(*node);
        eventually("the reason", || {
            let reason = plane.forming_reason()?;
            reason.contains("must exceed half").then_some(())
        })
        .await;
        assert_eq!(plane.cluster(), None);
    }
    counted.send_replace(settings(5));
    for task in forming {
        let formed = tokio::time::timeout(PATIENCE, task).await;
        formed.expect("a cluster forms").unwrap();
    }
}

/// Behind one name with all addresses, six nodes that began as three have settings that could found two
/// clusters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_outgrew_its_bootstrap_settings_takes_and_restarts_nodes() {
    let mut cluster = Cluster::empty(|_| ());
    for _ in 0..3 {
        cluster.add_machine().await;
    }
    cluster.everybody_sees_all();
    let founders = cluster.nodes();
    let formed = cluster.form(&founders, 3).await;
    let settings = BootstrapSettings {
        expect: 3,
        seed_addresses: 6,
    };
    let newcomer = cluster.add_machine().await;
    cluster.everybody_sees_all();
    for node in [newcomer, founders[0]] {
        let description = cluster.description(node);
        let cluster_of = cluster.plane(node).form(fixed(settings), description).await;
        assert_eq!(cluster_of.unwrap(), formed[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_majority_is_recovered_from_one_node() {
    let mut cluster = Cluster::empty(|_| ());
    for _ in 0..3 {
        cluster.add_machine().await;
    }
    cluster.everybody_sees_all();
    let nodes = cluster.nodes();
    cluster.form(&nodes, 3).await;
    let (saved, survivor, lost) = (nodes[0], nodes[1], nodes[2]);
    create_tenant(&cluster.plane(saved), "before")
        .await
        .unwrap();
    cluster.plane(saved).read_linearizable().await.unwrap();
    for node in &nodes {
        cluster.crash(*node, CrashLoss::Dice).await;
    }
    let disk = |node| -> Arc<dyn Disk> { Arc::new(cluster.machine(node).disk.clone()) };
    let directory = cluster.options.directory.clone();
    let survivors = recovery::Survivors {
        others: vec![survivor.to_string()],
        at: 42,
    };
    let inspected = recovery::inspect(disk(saved), &directory, &survivors).await;
    let recovered = recovery::become_only_voter(disk(saved), &directory, &survivors).await;
    let report = recovered.unwrap();
    assert_eq!(inspected.unwrap(), report);
    assert_eq!(report.lost, [lost]);
    let before: BTreeSet<NodeId> = report.voters_before.iter().copied().collect();
    assert_eq!(before, nodes.iter().copied().collect());
    recovery::forget_group(&disk(survivor), &directory).unwrap();

    cluster.everybody_sees(&[saved, survivor]);
    cluster.start(saved).await.unwrap();
    let plane = cluster.plane(saved);
    create_tenant(&plane, "after").await.unwrap();
    let state = plane.read_linearizable().await.unwrap();
    assert!(state.tenant_id("before").is_some());
    assert_eq!(state.recoveries().len(), 1);
    assert_eq!(state.recoveries()[0].last, report.last);

    cluster.start(survivor).await.unwrap();
    cluster.form(&[survivor], 3).await;
    let state = cluster.plane(survivor).read_linearizable().await.unwrap();
    assert!(state.tenant_id("before").is_some() && state.tenant_id("after").is_some());
    let voters: BTreeSet<NodeId> = [saved, survivor].into();
    eventually("the second voter", || {
        (plane.status().voters == voters).then_some(())
    })
    .await;
    assert!(!plane.status().voters.contains(&lost));
}
