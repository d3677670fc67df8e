//! The flags of `tmem run`, from the declarations of the options.

use std::ffi::{OsStr, OsString};

use crate::help::heading;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tmem_config::{Declaration, Group, Invalid, Layer, OPTIONS};

const ABOUT: &str = "Run a program with its cold memory on memory servers

The program may keep as much memory in local RAM as --local says, together with all processes \
that it starts. What exceeds that goes to the memory servers and comes back when it is touched. \
The program needs no change. Without --server, `tmem run` starts a memory server in its own \
process: all pages then stay in this machine's RAM, so that nothing is gained. That is for \
trying tmem.";

const USAGE: &str = "tmem run --local SIZE [--server ADDR]... [OPTIONS] -- PROGRAM [ARGUMENTS]...";

const EXAMPLES: &str =
    "  tmem run --local 2G --server node1:7070 --server node2:7070 -- ./app --flag-of-app
  tmem run --local 64M --summary -- sort big.txt    # without --server: only to try tmem";

const EXIT_STATUS: &str = "\
  that of the program; 128 + N if signal N ended it
  125  tmem did not start the program: a message says why
  126  the program cannot be executed
  127  the program was not found";

const PLACES: &str = "\
  Each option may also be set by its environment variable, or by its key in the file that
  --config names. A flag wins over a variable, a variable over the file. In variables, 1, true,
  yes and on switch an option on; 0, false, no and off switch it off; an empty variable counts as
  unset. TMEM_LIB names libtmem.so, which is otherwise looked for beside tmem and in ../lib.";

/// Adds the flags and the rest of the help to the command.
pub(crate) fn describe(command: Command) -> Command {
    let part = |title, text| format!("{}\n{text}", heading(title));
    let examples = part("Examples", EXAMPLES);
    let status = part("Exit status", EXIT_STATUS);
    let places = part("Variables and file", PLACES);
    let command = command
        .about("Run a program with its cold memory on memory servers")
        .long_about(ABOUT)
        .override_usage(USAGE)
        .after_help(format!("{examples}\n\n{status}\n\nMore: tmem run --help"))
        .after_long_help(format!("{places}\n\n{status}\n\n{examples}"));
    let groups = Group::ALL.into_iter();
    groups.fold(command, |command, group| {
        let of_group = OPTIONS.iter().filter(|option| option.group == group);
        command.args(of_group.map(flag))
    })
}

/// The flags that were given, as a layer of options.
pub(crate) fn given(matches: &ArgMatches) -> Result<Layer, clap::Error> {
    let values = |flag: &str| {
        let option = OPTIONS.iter().find(|option| option.flag == flag)?;
        match option.value {
            Some(_) => {
                let values = matches.get_many::<OsString>(flag)?;
                Some(values.cloned().collect())
            }
            None => matches.get_flag(flag).then(Vec::new),
        }
    };
    Layer::from_flags(values).map_err(|e| clap::Error::raw(ErrorKind::ValueValidation, e))
}

fn flag(option: &'static Declaration) -> Arg {
    let choices = option.choices.map(|words| format!(": {words}"));
    let help = format!("{}{}", option.help, choices.unwrap_or_default());
    let mut long = help.clone();
    if !option.more.is_empty() {
        long = format!("{long}\n\n{}", option.more);
    }
    let default = (option.default)().filter(|_| option.choices.is_some());
    let default = default.map(|default| format!(" [default: {default}]"));
    let key = option.key.map(|key| format!(", key: {key}"));
    let long = format!(
        "{long}\n[variable: {}{}]{}",
        option.variable,
        key.unwrap_or_default(),
        default.as_deref().unwrap_or_default()
    );
    let arg = Arg::new(option.flag)
        .long(option.flag)
        .help(format!("{help}{}", default.unwrap_or_default()))
        .long_help(long)
        .help_heading(option.group.heading());
    match option.value {
        Some(name) => arg
            .value_name(name)
            .action(match option.is_list {
                true => ArgAction::Append,
                false => ArgAction::Set,
            })
            .allow_hyphen_values(option.takes_hyphens)
            .value_parser(Checked(option.check)),
        None => arg.action(ArgAction::SetTrue),
    }
}

/// Reads a value as it is, if it is one that its option takes.
#[derive(Clone)]
struct Checked(fn(&OsStr) -> Result<(), Invalid>);

impl TypedValueParser for Checked {
    type Value = OsString;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<OsString, clap::Error> {
        (self.0)(value).map_err(|invalid| {
            let flag = arg.map(ToString::to_string).unwrap_or_default();
            let text = format!("{flag}: {invalid}\n{}", pointed_at(&invalid));
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })?;
        OsStringValueParser::new().parse_ref(command, arg, value)
    }
}

/// The value once more with a mark below the place that is wrong, where that is known.
fn pointed_at(invalid: &Invalid) -> String {
    let Some(place) = invalid.place else {
        return String::new();
    };
    let indent = " ".repeat(place as usize);
    format!("\n  {}\n  {indent}^\n", invalid.value)
}
