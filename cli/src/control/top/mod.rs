//! `tmem top`: the paged programs, live, and keys to change their budgets.

mod servers;
mod state;
mod view;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tmem_config::{MIN_LOCAL, ServerAddr, read_secret};
use tmem_pager::live::Request;

use super::find;
use servers::Servers;
use state::{Key, State};

/// Show the paged programs live
///
/// Keys: up and down choose a program, + and - change its budget by a tenth, e has its memory
/// leave, r brings it back, s sorts by another column, q ends.
#[derive(clap::Args)]
pub(crate) struct TopArgs {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    interval: f64,
    /// A memory server to show as well, host:port; may be given several times
    #[arg(long, value_name = "ADDR", value_delimiter = ',', env = "TMEM_SERVERS")]
    server: Vec<ServerAddr>,
    /// File with the secret that the servers know
    #[arg(long, value_name = "FILE", env = "TMEM_SECRET_FILE")]
    secret_file: Option<PathBuf>,
}

/// Between two looks, in seconds.
const INTERVALS: std::ops::RangeInclusive<f64> = 0.1..=3600.0;

pub(super) fn run(args: &TopArgs) -> Result<(), String> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err("`tmem top` needs a terminal; `tmem ps` lists the programs once".to_owned());
    }
    if !INTERVALS.contains(&args.interval) {
        let (least, most) = (INTERVALS.start(), INTERVALS.end());
        return Err(format!("--interval: allowed: {least} to {most} seconds"));
    }
    let secret = args.secret_file.as_deref().map(read_secret).transpose();
    let secret = secret.map_err(|e| e.to_string())?;
    let servers = Servers::watch(&args.server, secret.as_deref());
    let mut terminal = ratatui::try_init().map_err(|e| format!("the terminal: {e}"))?;
    let ended = follow(
        &mut terminal,
        Duration::from_secs_f64(args.interval),
        &servers,
    );
    ratatui::restore();
    ended.map_err(|e| format!("the terminal: {e}"))
}

fn follow(
    terminal: &mut ratatui::DefaultTerminal,
    interval: Duration,
    servers: &Servers,
) -> io::Result<()> {
    let mut state = State::default();
    // Rates take two looks, and the first screen is not to be empty for long.
    state.update(find::all());
    std::thread::sleep(interval.min(Duration::from_millis(200)));
    state.update(find::all());
    let mut next = Instant::now() + interval;
    loop {
        state.servers = servers.lines();
        terminal.draw(|frame| view::draw(frame, &mut state))?;
        let left = next.saturating_duration_since(Instant::now());
        if event::poll(left)? {
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
            {
                let is_break = key.modifiers.contains(KeyModifiers::CONTROL);
                match key.code {
                    KeyCode::Char('c') if is_break => return Ok(()),
                    KeyCode::Char('q') | KeyCode::Esc => return Ok(()),
                    code => act(&mut state, code),
                }
            }
        } else {
            state.update(find::all());
            next = Instant::now() + interval;
        }
    }
}

fn act(state: &mut State, code: KeyCode) {
    match code {
        KeyCode::Up | KeyCode::Char('k') => state.press(Key::Up),
        KeyCode::Down | KeyCode::Char('j') => state.press(Key::Down),
        KeyCode::Char('s') => state.press(Key::Sort),
        KeyCode::Char('+' | '=') => change_budget(state, |bytes| bytes + bytes / 10),
        KeyCode::Char('-') => change_budget(state, |bytes| bytes - bytes / 10),
        KeyCode::Char('e') => ask(state, Request::Evict, "leaves"),
        KeyCode::Char('r') => ask(state, Request::Recall, "comes back"),
        _ => {}
    }
}

fn change_budget(state: &mut State, change: impl Fn(u64) -> u64) {
    let Some(program) = state.chosen() else {
        return;
    };
    let bytes = change(program.allowed()).max(MIN_LOCAL);
    program.allow(bytes);
    state.say(format!(
        "budget of {}: {}",
        program_name(state),
        super::text::bytes(bytes)
    ));
}

fn ask(state: &mut State, request: Request, what: &str) {
    if let Some(program) = state.chosen() {
        program.ask(request);
        state.say(format!("memory of {} {what}", program_name(state)));
    }
}

fn program_name(state: &State) -> String {
    state.chosen().map_or(String::new(), |p| p.pid.to_string())
}
