//! What debuggers are told to do with `debugged` once it waits.

use crate::PAGES;
use std::path::{Path, PathBuf};
use tmem_tests::Outcome;

/// Values that are printed at first.
pub(crate) const VALUES: usize = 200;

/// How a debugger is told.
pub(crate) struct Script {
    /// Flags before the name of the script.
    pub(crate) flags: &'static [&'static str],
    /// The flag before a program and its arguments.
    pub(crate) program: &'static str,
    first: &'static str,
    /// Starts the program, and stops it where it waits.
    start: &'static str,
    /// Prints an expression.
    print: fn(&str) -> String,
    set: fn(&str) -> String,
    stop_at: &'static str,
    delete_stops: &'static str,
    watch: fn(&str) -> String,
    delete_watches: &'static str,
    /// What a line begins with that tells a value.
    mark: &'static str,
    /// It ends once it has printed values.
    pub(crate) only_values: bool,
}

pub(crate) const GDB: Script = Script {
    flags: &["-batch", "-nx", "-x"],
    program: "--args",
    first: "set confirm off\nset pagination off\nset width 0\n",
    start: "set startup-with-shell off\ntbreak usleep\nrun\n",
    print: |what| format!("printf \"> %lu\\n\", {what}"),
    set: |what| format!("set var {what}"),
    stop_at: "break stop_here",
    delete_stops: "delete",
    watch: |what| format!("watch -location {what}"),
    delete_watches: "delete",
    mark: ">",
    only_values: false,
};

pub(crate) const LLDB: Script = Script {
    flags: &["--batch", "--no-lldbinit", "--source"],
    program: "--",
    first: "",
    start: "breakpoint set --name usleep --one-shot true\nrun\n",
    print: |what| format!("expression -- (unsigned long)({what})"),
    set: |what| format!("expression -- {what}"),
    stop_at: "breakpoint set --name stop_here",
    delete_stops: "breakpoint delete --force",
    watch: |what| format!("watchpoint set expression -w write -s 8 -- &{what}"),
    delete_watches: "watchpoint delete --force",
    mark: "(unsigned long) $",
    only_values: false,
};

impl Script {
    /// The same, which ends once it has printed values.
    pub(crate) fn values_only(&self) -> Script {
        Script {
            only_values: true,
            ..*self
        }
    }

    /// Writes it into a folder. With `starts`, it starts the program.
    pub(crate) fn write(&self, folder: &Path, starts: bool) -> PathBuf {
        let mut text = String::from(self.first);
        if starts {
            text += self.start;
        }
        let commands = self.commands();
        let count = if self.only_values {
            VALUES
        } else {
            commands.len()
        };
        for command in &commands[..count] {
            text += command;
            text += "\n";
        }
        let file = folder.join("script");
        std::fs::write(&file, text).expect("the script can be written");
        file
    }

    fn commands(&self) -> Vec<String> {
        let print = self.print;
        let value = |n| n as u64 * (PAGES / VALUES as u64) * 512 + n as u64;
        let mut all: Vec<String> = (0..VALUES)
            .map(|n| print(&format!("base[{}]", value(n))))
            .collect();
        all.push((self.set)("base[5] = 4711"));
        all.push(print("base[5]"));
        all.push(print(&format!("sum_of(0, {PAGES})")));
        all.push((self.set)("go = 1"));
        all.push(self.stop_at.into());
        for _ in 0..2 {
            all.push("continue".into());
            all.push(print("page"));
        }
        all.push(self.delete_stops.into());
        let last = format!("base[{}]", PAGES * 512 - 1);
        all.push((self.watch)(&last));
        all.push(print(&last));
        // The program changes it twice.
        for _ in 0..2 {
            all.push("continue".into());
            all.push(print(&last));
        }
        all.push(self.delete_watches.into());
        all.push("continue".into());
        all
    }

    /// The lines with values, of which there are all.
    pub(crate) fn told(&self, outcome: &Outcome) -> Vec<String> {
        // Each value before the program runs, two after it was changed, two of stops, three
        // of a watchpoint.
        const ALL: usize = VALUES + 2 + 2 + 3;
        let stdout = outcome.stdout();
        let lines = stdout.lines().filter(|line| line.starts_with(self.mark));
        let told: Vec<String> = lines.map(str::to_owned).collect();
        assert!(told.len() == ALL, "{stdout}{}", outcome.describe());
        told
    }
}
