//! What `tmem top` shows: the programs, what they did of late, and which is chosen.

use std::collections::{HashMap, VecDeque};

use crate::control::program::{Program, Rates, Sample};
use crate::control::ps::Line;

use super::servers::ServerLine;

/// Looks that are kept of each program.
const HISTORY: usize = 240;

/// A key that changes what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Sort,
}

/// What the list is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    #[default]
    Waiting,
    Faults,
    Resident,
    Remote,
    Pid,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Order::Waiting => "waiting",
            Order::Faults => "faults",
            Order::Resident => "resident",
            Order::Remote => "remote",
            Order::Pid => "PID",
        }
    }

    fn next(self) -> Order {
        match self {
            Order::Waiting => Order::Faults,
            Order::Faults => Order::Resident,
            Order::Resident => Order::Remote,
            Order::Remote => Order::Pid,
            Order::Pid => Order::Waiting,
        }
    }

    /// The largest first, but for numbers.
    fn compare(self, a: &Line, b: &Line) -> std::cmp::Ordering {
        let by = match self {
            Order::Waiting => b.waited_some.total_cmp(&a.waited_some),
            Order::Faults => b.faults_per_second.total_cmp(&a.faults_per_second),
            Order::Resident => b.resident_bytes.cmp(&a.resident_bytes),
            Order::Remote => b.remote_bytes.cmp(&a.remote_bytes),
            Order::Pid => a.pid.cmp(&b.pid),
        };
        by.then(a.pid.cmp(&b.pid))
    }
}

/// Everything that is shown.
#[derive(Default)]
pub(super) struct State {
    programs: Vec<Program>,
    before: HashMap<u32, Sample>,
    history: HashMap<u32, VecDeque<Rates>>,
    pub(super) lines: Vec<Line>,
    pub(super) order: Order,
    pub(super) servers: Vec<ServerLine>,
    /// The number of the program that is chosen.
    chosen: Option<u32>,
    /// What the last key has done.
    pub(super) said: String,
}

impl State {
    /// Takes in what programs there are now.
    pub(super) fn update(&mut self, programs: Vec<Program>) {
        let mut before = HashMap::new();
        self.lines.clear();
        for program in &programs {
            let Some(now) = program.sample() else {
                continue;
            };
            let earlier = self.before.get(&program.pid);
            let rates = earlier.map(|earlier| Rates::between(earlier, &now));
            before.insert(program.pid, now);
            self.add(Line::new(program, &now, &rates.unwrap_or_default()), rates);
        }
        self.before = before;
        self.programs = programs;
        self.history.retain(|pid, _| self.before.contains_key(pid));
        self.sort();
    }

    fn add(&mut self, line: Line, rates: Option<Rates>) {
        if let Some(rates) = rates {
            let history = self.history.entry(line.pid).or_default();
            if history.len() == HISTORY {
                history.pop_front();
            }
            history.push_back(rates);
        }
        self.lines.push(line);
    }

    fn sort(&mut self) {
        let order = self.order;
        self.lines.sort_by(|a, b| order.compare(a, b));
        if self.place().is_none() {
            self.chosen = self.lines.first().map(|line| line.pid);
        }
    }

    /// Where the chosen program is in the list.
    pub(super) fn place(&self) -> Option<usize> {
        let chosen = self.chosen?;
        self.lines.iter().position(|line| line.pid == chosen)
    }

    /// The chosen program.
    pub(super) fn chosen(&self) -> Option<&Program> {
        let chosen = self.chosen?;
        self.programs.iter().find(|program| program.pid == chosen)
    }

    /// What the chosen program did of late, the latest last.
    pub(super) fn chosen_history(&self) -> Vec<Rates> {
        let history = self.chosen.and_then(|pid| self.history.get(&pid));
        history.into_iter().flatten().copied().collect()
    }

    /// Says what a key has done.
    pub(super) fn say(&mut self, text: String) {
        self.said = text;
    }

    /// Does what a key asks for.
    pub(super) fn press(&mut self, key: Key) {
        let last = self.lines.len().saturating_sub(1);
        let place = self.place().unwrap_or(0);
        let place = match key {
            Key::Up => place.saturating_sub(1),
            Key::Down => (place + 1).min(last),
            Key::Sort => {
                self.order = self.order.next();
                return self.sort();
            }
        };
        self.chosen = self.lines.get(place).map(|line| line.pid);
    }
}

#[cfg(test)]
impl State {
    /// With these lines, each with one look.
    pub(super) fn with(lines: Vec<(Line, Rates)>) -> State {
        let mut state = State::default();
        for (line, rates) in lines {
            state.add(line, Some(rates));
        }
        state.sort();
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::top::view::tests::line;

    #[test]
    fn the_choice_stays_with_its_program_when_the_order_changes() {
        let mut state = State::with(vec![
            (line(1, 0.1), Rates::default()),
            (line(2, 0.9), Rates::default()),
            (line(3, 0.5), Rates::default()),
        ]);
        let pids = |state: &State| state.lines.iter().map(|l| l.pid).collect::<Vec<_>>();
        assert_eq!((pids(&state), state.place()), (vec![2, 3, 1], Some(0)));
        state.press(Key::Down);
        assert_eq!(state.chosen, Some(3));
        while state.order != Order::Pid {
            state.press(Key::Sort);
        }
        assert_eq!((pids(&state), state.place()), (vec![1, 2, 3], Some(2)));
        state.press(Key::Down);
        assert_eq!(state.place(), Some(2));
        (0..5).for_each(|_| state.press(Key::Up));
        assert_eq!(state.place(), Some(0));
    }

    #[test]
    fn without_programs_keys_do_nothing() {
        let mut state = State::default();
        for key in [Key::Up, Key::Down, Key::Sort] {
            state.press(key);
        }
        assert!(state.place().is_none() && state.chosen().is_none());
    }

    #[test]
    fn history_has_an_end() {
        let mut state = State::default();
        for _ in 0..HISTORY + 10 {
            state.add(line(1, 0.0), Some(Rates::default()));
        }
        assert_eq!(state.history[&1].len(), HISTORY);
    }
}
