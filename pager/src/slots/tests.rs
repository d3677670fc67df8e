use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

fn id(number: u16) -> ServerId {
    ServerId::new(number)
}

/// So many servers, each on a machine of its own.
pub(super) fn locations(count: u16) -> Vec<Location> {
    let machines = 0..count;
    let location = |machine| Location {
        is_here: false,
        machine,
        zone: None,
    };
    machines.map(location).collect()
}

/// The server that has a page.
fn on(s: &Slots, slot: Slot) -> Option<ServerId> {
    s.readable(slot).next().map(|at| at.server)
}

/// The slab, as its server calls it, and the page.
fn address(s: &Slots, slot: Slot) -> Option<(u32, u32)> {
    s.readable(slot).next().map(|at| (at.slab, at.page))
}

fn only(server: u16) -> Group {
    [id(server)].into_iter().collect()
}

fn slots(slab_pages: u32, slabs: &[&[u32]]) -> Slots {
    let mut s = Slots::new(locations(slabs.len() as u16), 1);
    for (i, list) in slabs.iter().enumerate() {
        s.set_geometry(id(i as u16), slab_pages).unwrap();
        s.add_slabs(id(i as u16), list);
    }
    s
}

#[test]
fn a_slot_fits_in_forty_bits_and_comes_back_from_them() {
    let slot = Slot::new(MAX_SLABS - 1, MAX_SLAB_PAGES - 1);
    assert_eq!(slot.bits(), (1 << 40) - 1);
    assert_eq!(Slot::from_bits(slot.bits()), slot);
    assert_eq!((slot.slab(), slot.page()), (MAX_SLABS - 1, 65535));
    assert_eq!(Slot::new(5, 7).next(), Slot::new(5, 8));
}

#[test]
fn a_wanted_run_is_one_run_where_there_is_room() {
    let mut s = slots(1024, &[&[7, 9]]);
    let mut out = Vec::new();
    for _ in 0..4 {
        assert_eq!(s.alloc(512, &mut out), 512);
    }
    assert_eq!(out.iter().map(|r| r.1).collect::<Vec<_>>(), [512; 4]);
    assert_eq!(s.alloc(1, &mut out), 0);
    assert_eq!(s.used_pages(), 2048);
}

#[test]
fn runs_go_to_servers_in_proportion_to_their_space() {
    let mut s = slots(1024, &[&[0, 1, 2, 3], &[0, 1, 2, 3]]);
    s.set_grantable(id(0), 3 * 4096 - 4096 + 1024 * 8);
    s.set_grantable(id(1), 1024);
    let mut out = Vec::new();
    assert_eq!(s.alloc(64, &mut out), 64);
    for _ in 0..31 {
        s.alloc(64, &mut out);
    }
    let of = |n: u16| out.iter().filter(|r| on(&s, r.0) == Some(id(n))).count();
    assert!(of(0) > of(1) * 2 && of(1) > 2, "{} and {}", of(0), of(1));
}

/// A server whose share is least beside one that has all.
fn slow_and_quick() -> [tmem_policy::placement::Share; 2] {
    let speed = |ns| tmem_policy::placement::Speed {
        wait_ns: Some(ns),
        page_ns: None,
    };
    let shares = tmem_policy::placement::shares(&[speed(1 << 30), speed(1)]);
    [shares[0], shares[1]]
}

#[test]
fn a_slow_server_gets_what_others_have_no_room_for() {
    let mut s = slots(1024, &[&[0, 1, 2, 3], &[0, 1, 2, 3]]);
    for (server, share) in ServerId::all().zip(slow_and_quick()) {
        s.set_share(server, share);
    }
    assert_eq!(
        (s.free_as_good_as(only(0)), s.free_as_good_as(only(1))),
        (8192, 4096)
    );
    let mut out = Vec::new();
    s.set_busy(id(1), true);
    s.alloc(1, &mut out);
    s.set_busy(id(1), false);
    let on_slow = out.pop().expect("the slow server has room").0;
    for _ in 0..60 {
        assert_eq!(s.alloc(64, &mut out), 64);
    }
    let of = |s: &Slots, n: u16| out.iter().filter(|r| on(s, r.0) == Some(id(n))).count();
    assert!(of(&s, 0) < 4 && of(&s, 1) > 50);
    assert!(s.has_better(on_slow) && !s.has_better(out[0].0));
    // With less to spare a page is as well where it is.
    assert_eq!(s.alloc(4095, &mut Vec::new()), 4095);
    assert!(!s.has_better(on_slow));
    s.alloc(1, &mut out);
    assert_eq!(on(&s, out[out.len() - 1].0), Some(id(0)));
}

#[test]
fn slabs_are_asked_of_the_quick_server_first() {
    let mut s = slots(64, &[&[], &[]]);
    for (server, share) in ServerId::all().zip(slow_and_quick()) {
        s.set_share(server, share);
        s.set_grantable(server, 64 * 20);
    }
    for wire in 0..20 {
        assert_eq!(s.next_group(), only(1), "{wire}");
        s.add_slabs(id(1), &[wire]);
    }
    assert_eq!(s.next_group(), only(0));
}

#[test]
fn a_busy_server_is_passed_over_and_its_room_is_not_gone() {
    let mut s = slots(64, &[&[1], &[2]]);
    s.set_busy(id(0), true);
    let mut out = Vec::new();
    assert_eq!(s.alloc(128, &mut out), 64);
    assert!(out.iter().all(|r| on(&s, r.0) == Some(id(1))));
    assert!(s.waits_for_turn());
    assert_eq!(s.total_free(), 64);
    s.set_busy(id(0), false);
    assert!(!s.waits_for_turn());
    assert_eq!(s.alloc(128, &mut out), 64);
}

#[test]
fn a_server_that_rests_gets_nothing_and_keeps_what_it_has() {
    let mut s = slots(64, &[&[1], &[2]]);
    let mut out = Vec::new();
    s.alloc(100, &mut out);
    let mut slots = out.iter().map(|r| r.0);
    let slot = slots.find(|slot| on(&s, *slot) == Some(id(0)));
    let slot = slot.expect("both servers have pages");
    s.set_resting(id(0), true);
    s.set_grantable(id(0), 64);
    assert!(s.is_frozen(slot) && on(&s, slot).is_some());
    assert!(s.next_group().is_empty());
    let free = s.total_free();
    assert_eq!(s.alloc(100, &mut Vec::new()) as u64, free);
    s.set_resting(id(0), false);
    assert!(!s.is_frozen(slot));
    assert_eq!(s.next_group(), only(0));
}

#[test]
fn a_slab_that_keeps_failing_is_given_up_for_new_pages_until_it_is_thawed() {
    let mut s = slots(64, &[&[1, 2]]);
    let mut out = Vec::new();
    s.alloc(10, &mut out);
    let slot = out[0].0;
    for _ in 0..2 {
        s.failed(slot, false, 3);
        s.failed(slot, false, 3);
        s.worked(slot, 1, 0);
    }
    assert!(!s.is_frozen(slot));
    assert_eq!(s.total_free(), 118);
    (0..3).for_each(|_| s.failed(slot, false, 3));
    assert!(s.is_frozen(slot) && on(&s, slot).is_some());
    assert_eq!(s.total_free(), 64);
    // Once more is no more than once.
    s.failed(slot, true, 3);
    assert_eq!(s.total_free(), 64);
    assert_eq!(s.alloc(100, &mut Vec::new()), 64);
    let room = s.frozen_with_room(9);
    assert_eq!(room.len(), 1);
    s.thaw(room[0]);
    assert!(!s.is_frozen(slot));
    assert_eq!(s.total_free(), 54);
    s.failed(slot, true, 200);
    assert!(s.is_frozen(slot));
}

#[test]
fn empty_slabs_beyond_those_kept_are_given_back() {
    let mut s = slots(64, &[&[11, 12, 13]]);
    let mut runs = Vec::new();
    s.alloc(128, &mut runs);
    let mut gone = Vec::new();
    s.take_empty_slabs(0, &mut gone);
    assert_eq!(gone.iter().map(|g| g.1.len()).sum::<usize>(), 1);
    for (slot, len) in runs {
        s.free(slot, len);
    }
    gone.clear();
    s.take_empty_slabs(1, &mut gone);
    assert_eq!(gone[0].1.len(), 1);
    assert_eq!(s.total_free(), 64);
    assert_eq!(s.grantable(id(0)), 128);
}

#[test]
fn frozen_slabs_are_not_allocated_from_and_given_back_when_free() {
    let mut s = slots(64, &[&[1]]);
    let mut runs = Vec::new();
    s.alloc(10, &mut runs);
    s.freeze();
    assert_eq!((s.total_free(), s.alloc(1, &mut Vec::new())), (0, 0));
    s.add_slabs(id(0), &[2]);
    let mut later = Vec::new();
    assert_eq!(s.alloc(64, &mut later), 64);
    assert_eq!(address(&s, later[0].0), Some((2, 0)));
    assert_eq!(address(&s, runs[0].0), Some((1, 0)));
    let mut gone = Vec::new();
    s.take_empty_slabs(9, &mut gone);
    assert!(gone.is_empty());
    s.free(runs[0].0, 10);
    s.take_empty_slabs(9, &mut gone);
    assert_eq!(gone, [(id(0), std::vec![1])]);
    assert_eq!(s.used_pages(), 64);
}

#[test]
fn frozen_slabs_are_used_again_once_they_are_thawed() {
    let mut s = slots(64, &[&[1, 2]]);
    let mut runs = Vec::new();
    s.alloc(70, &mut runs);
    s.freeze();
    // One is full: there is nothing to be had of it.
    let room = s.frozen_with_room(9);
    assert_eq!(room.len(), 1);
    assert!(s.is_frozen(room[0]));
    assert!(
        runs.iter()
            .all(|(slot, n)| !(0..*n).any(|i| slot.offset(i) == room[0]))
    );
    s.thaw(room[0]);
    assert!(!s.is_frozen(room[0]));
    assert_eq!(s.total_free(), 58);
    assert_eq!(s.alloc(100, &mut Vec::new()), 58);
    assert_eq!(s.used_pages(), 128);
    // Twice is as good as once.
    s.thaw(room[0]);
    assert_eq!(s.total_free(), 0);
}

#[test]
fn a_stale_slot_of_a_lost_server_names_nothing() {
    let mut s = slots(64, &[&[1], &[5]]);
    let mut runs = Vec::new();
    s.alloc(128, &mut runs);
    let is_on_0 = |r: &&(Slot, u32)| on(&s, r.0) == Some(id(0));
    let stale: Vec<_> = runs.iter().filter(is_on_0).collect();
    s.server_lost(id(0));
    assert_eq!(s.used_pages(), 64);
    s.set_geometry(id(0), 64).unwrap();
    s.add_slabs(id(0), &[1]);
    for (slot, len) in stale {
        assert_eq!(address(&s, *slot), None);
        s.free(*slot, *len);
    }
    assert_eq!(s.total_free(), 64);
}

#[test]
fn slabs_that_cannot_be_numbered_are_refused() {
    let mut s = Slots::new(locations(1), 1);
    assert_eq!(s.set_geometry(id(0), 0), Err(GeometryError::SlabPages(0)));
    assert_eq!(
        s.set_geometry(id(0), 65537),
        Err(GeometryError::SlabPages(65537))
    );
    assert_eq!(s.set_geometry(id(1), 64), Err(GeometryError::Server(id(1))));
    s.set_geometry(id(0), 65536).unwrap();
    s.add_slabs(id(0), &[0]);
    assert_eq!(
        s.set_geometry(id(0), 64),
        Err(GeometryError::Changed {
            before: 65536,
            now: 64
        })
    );
}

#[test]
fn the_next_grant_is_asked_of_the_server_with_the_smallest_share_free() {
    let mut s = slots(64, &[&[1, 2], &[1]]);
    assert!(s.next_group().is_empty());
    s.set_grantable(id(0), 640);
    s.set_grantable(id(1), 640);
    assert_eq!(s.next_group(), only(1));
    s.set_grantable(id(1), 63);
    assert_eq!(s.next_group(), only(0));
}

#[derive(Clone, Debug)]
enum Step {
    Grant(u8, u8),
    Alloc(u16),
    Free(u16, u16, u16),
    Release(u8),
    Lose(u8),
    Freeze,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8, 1..4u8).prop_map(|(s, n)| Step::Grant(s, n)),
        10 => (1..200u16).prop_map(Step::Alloc),
        10 => (any::<u16>(), any::<u16>(), any::<u16>()).prop_map(|(a, b, c)| Step::Free(a, b, c)),
        2 => (0..3u8).prop_map(Step::Release),
        1 => (0..3u8).prop_map(Step::Lose),
        1 => Just(Step::Freeze),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Against a set of the pages in use, by their wire addresses: no page is
    /// handed out twice, nothing free is lost, the counts are exact.
    #[test]
    fn allocation_agrees_with_a_set(
        sizes in prop::array::uniform3(1..200u32),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut s = Slots::new(locations(3), 1);
        for (i, n) in sizes.iter().enumerate() {
            s.set_geometry(id(i as u16), *n).unwrap();
        }
        // (server, wire slab) → frozen
        let mut owned: BTreeMap<(ServerId, u32), bool> = BTreeMap::new();
        let mut live: Vec<(Slot, u32)> = Vec::new();
        let mut used: BTreeSet<(ServerId, u32, u32)> = BTreeSet::new();
        let mut next_wire = 100;
        for step in steps {
            match step {
                Step::Grant(server, n) => {
                    let list: Vec<u32> = (next_wire..next_wire + u32::from(n)).collect();
                    next_wire += u32::from(n);
                    s.add_slabs(id(server.into()), &list);
                    owned.extend(list.iter().map(|w| ((id(server.into()), *w), false)));
                }
                Step::Alloc(want) => {
                    let could: u64 = s.total_free();
                    let mut out = Vec::new();
                    let got = s.alloc(want.into(), &mut out);
                    prop_assert_eq!(got as u64, could.min(want.into()));
                    prop_assert_eq!(out.iter().map(|r| r.1 as usize).sum::<usize>(), got);
                    for (slot, len) in out {
                        let mut at = slot;
                        for _ in 0..len {
                            let place = s.readable(at).next().unwrap();
                            prop_assert!(place.page < sizes[place.server.index()]);
                            let slab = (place.server, place.slab);
                            prop_assert_eq!(owned.get(&slab), Some(&false));
                            prop_assert!(used.insert((slab.0, slab.1, place.page)));
                            at = at.next();
                        }
                        live.push((slot, len));
                    }
                }
                Step::Free(which, skip, n) => if !live.is_empty() {
                    let (slot, len) = live.swap_remove(usize::from(which) % live.len());
                    let skip = u32::from(skip) % len;
                    let n = 1 + u32::from(n) % (len - skip);
                    let At { server, slab, page } = s.readable(slot).next().unwrap();
                    for p in page + skip..page + skip + n {
                        prop_assert!(used.remove(&(server, slab, p)));
                    }
                    s.free(slot.offset(skip), n);
                    if skip > 0 {
                        live.push((slot, skip));
                    }
                    if skip + n < len {
                        live.push((slot.offset(skip + n), len - skip - n));
                    }
                },
                Step::Release(keep) => {
                    let mut out = Vec::new();
                    s.take_empty_slabs(keep.into(), &mut out);
                    for (server, list) in out {
                        for wire in list {
                            prop_assert!(owned.remove(&(server, wire)).is_some());
                            prop_assert!(!used.iter().any(|u| (u.0, u.1) == (server, wire)));
                        }
                    }
                    for server in ServerId::first(3) {
                        let empty = owned.iter().filter(|(k, frozen)| {
                            k.0 == server && !**frozen && !used.iter().any(|u| (u.0, u.1) == **k)
                        });
                        prop_assert!(empty.count() <= usize::from(keep));
                    }
                }
                Step::Lose(server) => {
                    let server = id(server.into());
                    s.server_lost(server);
                    owned.retain(|k, _| k.0 != server);
                    used.retain(|u| u.0 != server);
                    live.retain(|l| on(&s, l.0).is_some());
                    s.set_geometry(server, sizes[server.index()]).unwrap();
                }
                Step::Freeze => {
                    s.freeze();
                    owned.values_mut().for_each(|f| *f = true);
                }
            }
            prop_assert_eq!(s.used_pages(), used.len() as u64);
            let room: u64 = owned.iter().filter(|(_, f)| !**f)
                .map(|(k, _)| u64::from(sizes[k.0.index()])).sum();
            let in_open = used.iter().filter(|u| !owned[&(u.0, u.1)]).count() as u64;
            prop_assert_eq!(s.total_free(), room - in_open);
        }
    }
}

#[test]
fn nothing_goes_to_a_server_that_drains_and_its_slabs_are_given_back_as_they_get_empty() {
    let mut s = slots(64, &[&[1, 2], &[7]]);
    s.set_grantable(id(0), 640);
    let mut out = Vec::new();
    assert_eq!(s.alloc(160, &mut out), 160);
    let there: Vec<(Slot, u32)> = out
        .iter()
        .copied()
        .filter(|r| on(&s, r.0) == Some(id(0)))
        .collect();
    s.drain(id(0));
    assert_eq!(s.draining().collect::<Vec<_>>(), [id(0)]);
    assert!(
        there
            .iter()
            .all(|(slot, _)| s.is_draining(*slot) && s.is_frozen(*slot))
    );
    assert!(s.next_group().is_empty());
    let mut more = Vec::new();
    s.alloc(64, &mut more);
    assert!(more.iter().all(|(slot, _)| on(&s, *slot) == Some(id(1))));
    // What is there has its name still, until it is freed.
    for (slot, n) in there {
        assert!(address(&s, slot).is_some());
        s.free(slot, n);
    }
    assert_eq!(s.used_on(id(0)), 0);
    let mut gone = Vec::new();
    s.take_empty_slabs(4, &mut gone);
    gone.iter_mut().for_each(|(_, slabs)| slabs.sort_unstable());
    assert_eq!(gone, [(id(0), std::vec![1, 2])]);
    assert_eq!(s.draining().count(), 0);
    // One that comes again in its place does not drain.
    s.server_lost(id(0));
    s.set_geometry(id(0), 64).unwrap();
    s.add_slabs(id(0), &[3]);
    assert_eq!(s.draining().count(), 0);
}
