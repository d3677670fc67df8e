use super::*;
use crate::engine::threads::for_this_test;

/// Has a task do work that changes nothing, as a thread. Returns the thread's number.
fn thread_of(task: &mut ZapTask) -> u32 {
    task.is_told_of_processes = false;
    let mask = thread::block_signals();
    task.ask(Work::Unshare, &(0..0)).unwrap();
    thread::set_mask(mask);
    (0..)
        .take_while(|_| !task.is_done())
        .for_each(thread::await_turn);
    task.rest();
    match task.who {
        Who::Thread(tid) => tid,
        _ => panic!("not a thread"),
    }
}

#[test]
fn a_thread_that_zaps_ends_before_the_process_of_its_engine() {
    let _turn = for_this_test();
    program::begin(true);
    let mut task = ZapTask::new().unwrap();
    // Each round starts a new task.
    for _ in 0..3 {
        let tid = thread_of(&mut task);
        assert!(thread::is_there(thread::leader(), tid));
        task.end();
        assert!(matches!(task.who, Who::Nobody));
        assert!(!thread::is_there(thread::leader(), tid));
    }
    program::begin(false);
}

#[test]
fn a_thread_that_zaps_stays_where_the_engine_is_a_thread_as_well() {
    let _turn = for_this_test();
    let mut task = ZapTask::new().unwrap();
    let tid = thread_of(&mut task);
    task.end();
    // The thread counts among the threads of the process.
    assert!(thread::is_there(thread::leader(), tid));
    assert_eq!(thread_of(&mut task), tid);
}
