//! The session table, as a server that was killed, or somebody who meddled, leaves it.

use super::super::record::Held;
use super::*;
use crate::client::Client;
use crate::store::name::SessionName;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, memfd_create};

const IDENTITY: Identity = Identity {
    instance: [7; 16],
    slab_pages: 64,
};

fn file() -> OwnedFd {
    memfd_create("test", MemfdFlags::CLOEXEC).unwrap()
}

fn bytes(file: &OwnedFd) -> Vec<u8> {
    let mut bytes = vec![0; fstat(file).unwrap().st_size as usize];
    let got = read(file, &mut bytes, 0).unwrap();
    bytes.truncate(got);
    bytes
}

fn file_of(bytes: &[u8]) -> OwnedFd {
    let file = file();
    write_all(&file, bytes, 0).unwrap();
    file
}

fn name(n: u8) -> SessionName {
    SessionName([n; 16])
}

/// What a server may note: of sessions 1 to 4, with numbers that are not used twice.
fn change() -> impl Strategy<Value = (u8, u8, u32)> {
    (0u8..5, 1u8..5, 1u32..4)
}

/// The record that such numbers stand for in a state, if it makes sense there.
fn record(state: &State, (kind, n, count): (u8, u8, u32), bits: &mut u32) -> Option<Record> {
    let kept = state.sessions.get(&name(n));
    let mut slabs = |next: u32| {
        (next..next + count)
            .map(|number| {
                *bits += 1;
                Held {
                    number,
                    slab: *bits % 100,
                    bits: *bits,
                }
            })
            .collect::<Vec<_>>()
    };
    match (kind, kept) {
        (0, None) => Some(Record::Session {
            name: name(n),
            client: Client::at(Some(([10, 0, 0, n], 1).into())),
            parent: (n > 1).then(|| name(n - 1)),
            next: count,
            slabs: slabs(0),
        }),
        (1, Some(kept)) => Some(Record::Grant {
            name: name(n),
            next: kept.next + count,
            slabs: slabs(kept.next),
        }),
        (2, Some(kept)) => Some(Record::Release {
            name: name(n),
            numbers: kept.slabs.keys().copied().take(count as usize).collect(),
        }),
        (3, Some(_)) => Some(Record::Joined(name(n))),
        (4, Some(_)) => Some(Record::End(name(n))),
        _ => None,
    }
}

/// A table to which changes were appended, and what there was after each, the first nothing.
fn table_with(changes: &[(u8, u8, u32)]) -> (Table, Vec<State>) {
    let mut table = Table::create(file(), IDENTITY).unwrap();
    let mut states = vec![State::default()];
    let mut bits = 0;
    for change in [(0, 1, 1)].iter().chain(changes) {
        if let Some(record) = record(table.state(), *change, &mut bits) {
            table.append(&record).unwrap();
            states.push(table.state().clone());
        }
    }
    (table, states)
}

fn load(bytes: &[u8]) -> Result<Option<Table>, TableError> {
    Table::load(file_of(bytes))
}

proptest! {
    #[test]
    fn what_was_appended_is_loaded_also_when_it_was_written_anew(
        changes in prop::collection::vec(change(), 0..60),
        renewed in 0usize..60,
    ) {
        let (mut table, states) = table_with(&changes);
        let last = states.last().unwrap();
        let loaded = load(&bytes(&table.file)).unwrap().unwrap();
        prop_assert_eq!(loaded.state(), last);
        prop_assert_eq!(loaded.identity(), IDENTITY);
        if renewed < changes.len() {
            table.renew().unwrap();
            let mut bits = 100_000;
            if let Some(record) = record(table.state(), changes[renewed], &mut bits) {
                table.append(&record).unwrap();
            }
            let loaded = load(&bytes(&table.file)).unwrap().unwrap();
            prop_assert_eq!(loaded.state(), table.state());
        }
    }

    #[test]
    fn a_table_that_ends_anywhere_tells_what_was_there_before(
        changes in prop::collection::vec(change(), 1..30),
        cut in any::<prop::sample::Index>(),
        is_shorter in any::<bool>(),
    ) {
        let (table, states) = table_with(&changes);
        let mut all = bytes(&table.file);
        let end = table.end as usize;
        let at = cut.index(end + 1);
        // A record that was being written has zeros behind what was; a file may be cut, too.
        match is_shorter {
            true => all.truncate(at),
            // It is written in pieces that are no smaller than a word.
            false => all[at & !7..].fill(0),
        }
        // What says where the records begin is written at once.
        prop_assume!(is_shorter || !(START as usize..START as usize + 16).contains(&at));
        let loaded = load(&all).unwrap();
        let state = loaded.map(|table| table.state().clone()).unwrap_or_default();
        prop_assert!(states.contains(&state));
        if at == end {
            prop_assert_eq!(&state, states.last().unwrap());
        }
    }

    #[test]
    fn a_table_that_was_cut_is_appended_to(
        changes in prop::collection::vec(change(), 1..30),
        cut in any::<prop::sample::Index>(),
    ) {
        let (table, _) = table_with(&changes);
        let mut all = bytes(&table.file);
        let at = FIRST as usize + cut.index(table.end as usize - FIRST as usize + 1);
        all[at & !7..].fill(0);
        let mut table = load(&all).unwrap().unwrap();
        let mut bits = 100_000;
        for change in changes {
            if let Some(record) = record(table.state(), change, &mut bits) {
                table.append(&record).unwrap();
            }
        }
        let loaded = load(&bytes(&table.file)).unwrap().unwrap();
        prop_assert_eq!(loaded.state(), table.state());
    }

    #[test]
    fn a_changed_byte_is_found_or_changes_nothing(
        changes in prop::collection::vec(change(), 2..30),
        place in any::<prop::sample::Index>(),
        by in 1u8..,
    ) {
        let (table, states) = table_with(&changes);
        let mut all = bytes(&table.file);
        let at = place.index(table.end as usize);
        all[at] ^= by;
        match load(&all) {
            Err(_) => {}
            Ok(loaded) => {
                let state = loaded.map(|table| table.state().clone()).unwrap_or_default();
                // The last record may be taken for one that was being written, and what is
                // unused may hold anything.
                let last = &states[states.len().saturating_sub(2)..];
                prop_assert!(last.contains(&state), "byte {} of {}", at, table.end);
            }
        }
    }

    #[test]
    fn no_bytes_are_too_strange(strange in prop::collection::vec(any::<u8>(), 0..200)) {
        let (table, _) = table_with(&[]);
        let mut all = bytes(&table.file);
        let at = table.end as usize;
        all[at..at + strange.len()].copy_from_slice(&strange);
        let _ = load(&all);
        let _ = load(&strange);
    }
}

#[test]
fn a_table_stays_small_however_much_happens() {
    let mut table = Table::create(file(), IDENTITY).unwrap();
    let mut largest = 0;
    for n in 0..60_000u32 {
        let of = name((n % 200) as u8 + 1);
        let record = Record::Session {
            name: of,
            client: Client::at(None),
            parent: None,
            next: 0,
            slabs: Vec::new(),
        };
        table.append(&record).unwrap();
        table.append(&Record::End(of)).unwrap();
        largest = largest.max(fstat(&table.file).unwrap().st_blocks * 512);
    }
    assert!(largest < 4 << 20, "{largest} bytes");
    let loaded = Table::load(table.file.try_clone().unwrap())
        .unwrap()
        .unwrap();
    assert_eq!(loaded.state(), table.state());
}

#[test]
fn what_contradicts_the_table_is_not_noted() {
    let (mut table, _) = table_with(&[]);
    let before = bytes(&table.file);
    table.append(&Record::End(name(9))).unwrap_err();
    let release = Record::Release {
        name: name(1),
        numbers: vec![77],
    };
    table.append(&release).unwrap_err();
    assert!(bytes(&table.file) == before);
}

#[test]
fn tables_of_others_are_not_touched() {
    let (table, _) = table_with(&[]);
    let mut all = bytes(&table.file);
    assert!(matches!(load(b"some other file"), Err(TableError::Foreign)));
    assert!(load(&[]).unwrap().is_none());
    all[8] = 2;
    let later = load(&all).unwrap_err();
    assert!(matches!(later, TableError::Version(2)), "{later}");
}
