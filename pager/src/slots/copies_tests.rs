//! Tests of slab groups with several replicas.

use super::tests::locations;
use super::*;
use alloc::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

const PAGES: u32 = 64;

fn id(number: u16) -> ServerId {
    ServerId::new(number)
}

/// Servers that can grant so many slabs each, at these places.
fn slots(places: Vec<Location>, copies: usize, slabs: u64) -> Slots {
    let count = places.len() as u16;
    let mut s = Slots::new(places, copies);
    for server in ServerId::first(count) {
        s.set_geometry(server, PAGES).expect("64 pages are a slab");
        s.set_grantable(server, slabs * u64::from(PAGES));
    }
    s
}

/// Has servers grant what is asked for until `want` pages are free, or no more can be had.
fn grant(s: &mut Slots, want: u64, wire: &mut u32) {
    while s.total_free() < want {
        let group = s.next_group();
        if group.is_empty() {
            return;
        }
        for server in group
            .iter()
            .filter(|g| s.bare_slabs(*g) == 0)
            .collect::<Vec<_>>()
        {
            *wire += 1;
            s.add_slabs(server, &[*wire]);
        }
    }
}

fn servers(s: &Slots, slot: Slot) -> BTreeSet<ServerId> {
    s.readable(slot).map(|at| at.server).collect()
}

#[test]
fn replicas_are_on_other_machines_and_in_other_zones_where_there_are_some() {
    let at = |machine, zone| Location {
        machine,
        zone,
        is_here: false,
    };
    let zones = std::vec![at(0, Some(0)), at(1, Some(0)), at(2, Some(1))];
    let machines = std::vec![at(0, None), at(0, None), at(1, None)];
    let one = std::vec![at(0, None), at(0, None)];
    for (places, with) in [(zones, Some(2)), (machines, Some(2)), (one, None)] {
        let mut s = slots(places, 2, 10);
        grant(&mut s, 5 * u64::from(PAGES), &mut 0);
        let mut out = Vec::new();
        assert_eq!(s.alloc(300, &mut out), 300);
        for (slot, _) in out {
            let on = servers(&s, slot);
            assert_eq!(on.len(), 2);
            assert!(with.is_none_or(|with| on.contains(&id(with))), "{on:?}");
        }
    }
}

#[test]
fn nothing_is_written_once_while_a_second_server_is_expected() {
    let mut s = Slots::new(locations(2), 2);
    s.set_geometry(id(0), PAGES).expect("64 pages are a slab");
    s.set_grantable(id(0), 640);
    assert!(s.next_group().is_empty());
    s.add_slabs(id(0), &[1]);
    assert_eq!(s.total_free(), 0);
    s.is_absent(id(1));
    assert_eq!((s.total_free(), s.last_group()), (64, Some(1)));
}

#[test]
fn what_was_copied_before_a_second_loss_is_kept() {
    let mut s = slots(locations(3), 2, 10);
    grant(&mut s, 1, &mut 0);
    let mut out = Vec::new();
    s.alloc(20, &mut out);
    let first = out[0].0;
    let on: Vec<ServerId> = servers(&s, first).into_iter().collect();
    s.server_lost(on[0]);
    s.settle();
    assert_eq!(s.degraded(), (1, 20));
    assert!(s.begin_fill().is_none());
    let third = s.wants_slab_of().expect("a third server has room");
    s.add_slabs(third, &[77]);
    let slab = s.begin_fill().expect("there is a slab for it");
    assert_eq!(s.used_run(slab, 0, 8), Some((0, 8)));
    s.filled(slab, 0, 8);
    // A write that all servers have taken counts too, but for one that was sent before.
    s.worked(first.offset(15), 1, s.fills_begun() - 1);
    s.worked(first.offset(12), 1, s.fills_begun());
    s.server_lost(on[1]);
    let kept: Vec<u32> = (0..20).filter(|i| s.is_kept(first.offset(*i))).collect();
    assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 7, 12]);
    (0..20)
        .filter(|i| !kept.contains(i))
        .for_each(|i| s.free(first.offset(i), 1));
    s.settle();
    assert_eq!((servers(&s, first).len(), s.used_pages()), (1, 9));
}

#[derive(Clone, Debug)]
enum Step {
    Grant(u16),
    Alloc(u16),
    Free(u16),
    Lose(u16),
    Back(u16),
    Fill,
    EndFill,
    GiveUp,
    Freeze,
    Thaw,
    Release(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..200u16).prop_map(Step::Grant),
        8 => (1..100u16).prop_map(Step::Alloc),
        6 => any::<u16>().prop_map(Step::Free),
        1 => (0..4u16).prop_map(Step::Lose),
        2 => (0..4u16).prop_map(Step::Back),
        3 => Just(Step::Fill),
        2 => Just(Step::EndFill),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Freeze),
        1 => Just(Step::Thaw),
        1 => (0..3u8).prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens: a page in use is on different servers, no two pages have one
    /// place, counts are exact, and a page is lost only with all of its servers.
    #[test]
    fn pages_keep_their_replicas(
        copies in 1..4usize,
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut s = slots(locations(4), copies, 30);
        let mut wire = 0;
        let mut live: Vec<Slot> = Vec::new();
        let mut fills: Vec<Fill> = Vec::new();
        for step in steps {
            match step {
                Step::Grant(want) => grant(&mut s, want.into(), &mut wire),
                Step::Alloc(want) => {
                    let could = s.total_free();
                    let mut out = Vec::new();
                    prop_assert_eq!(s.alloc(want.into(), &mut out) as u64, could.min(want.into()));
                    live.extend(out.iter().flat_map(|(slot, n)| (0..*n).map(|i| slot.offset(i))));
                }
                Step::Free(which) => if !live.is_empty() {
                    let slot = live.swap_remove(usize::from(which) % live.len());
                    s.free(slot, 1);
                },
                Step::Lose(server) => {
                    let server = id(server);
                    let only = |slot: &Slot| servers(&s, *slot) == BTreeSet::from([server]);
                    let lost: BTreeSet<Slot> = live.iter().copied().filter(only).collect();
                    s.server_lost(server);
                    for slot in &live {
                        if !s.is_kept(*slot) {
                            prop_assert!(lost.contains(slot));
                            s.free(*slot, 1);
                        }
                    }
                    live.retain(|slot| s.is_kept(*slot));
                    s.settle();
                }
                Step::Back(server) => {
                    if s.slab_pages(id(server)) == 0 {
                        s.set_geometry(id(server), PAGES).expect("64 pages are a slab");
                        s.set_grantable(id(server), 30 * u64::from(PAGES));
                    }
                }
                Step::Fill => {
                    if let Some(server) = s.wants_slab_of() {
                        wire += 1;
                        s.add_slabs(server, &[wire]);
                    }
                    fills.extend(s.begin_fill());
                }
                Step::EndFill => if let Some(slab) = fills.pop() {
                    s.end_fill(slab);
                },
                Step::GiveUp => if let Some(slab) = fills.pop() {
                    s.give_up_fill(slab);
                },
                Step::Freeze => s.freeze(),
                Step::Thaw => s.frozen_with_room(2).into_iter().for_each(|slot| s.thaw(slot)),
                Step::Release(keep) => {
                    let mut out = Vec::new();
                    s.give_up_bare(keep.into());
                    s.take_empty_slabs(keep.into(), &mut out);
                }
            }
            let mut places = BTreeSet::new();
            for slot in &live {
                let on: Vec<At> = s.readable(*slot).collect();
                prop_assert!(!on.is_empty() && on.len() <= copies);
                prop_assert_eq!(servers(&s, *slot).len(), on.len());
                for at in on {
                    prop_assert!(places.insert((at.server, at.slab, at.page)));
                }
            }
            prop_assert_eq!(s.used_pages(), live.len() as u64);
            let poor = |slot: &&Slot| s.readable(**slot).count() < copies;
            let poor = live.iter().filter(poor).count() as u64;
            prop_assert_eq!(s.degraded().1, poor);
        }
    }
}
