//! The screen of `tmem top`.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line as TextLine;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table, TableState};

use crate::control::program::Rates;
use crate::control::text;

use super::state::State;

/// Rows of each chart.
const CHART: u16 = 4;

const KEYS: &str = " up/down choose   + - budget   e evict   r recall   s sort   q quit";

/// Whether colours are wanted.
fn is_coloured() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn coloured(colour: Color) -> Style {
    match is_coloured() {
        true => Style::new().fg(colour),
        false => Style::new(),
    }
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let servers = match state.servers.len() {
        0 => 0,
        n => n as u16 + 2,
    };
    let [head, programs, servers, charts, said, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(4),
        Constraint::Length(servers),
        Constraint::Length(CHART + 1),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let sum = |of: fn(&crate::control::ps::Line) -> u64| state.lines.iter().map(of).sum::<u64>();
    let title = format!(
        " tmem: {} programs, resident {}, on servers {}; sorted by {}",
        state.lines.len(),
        text::bytes(sum(|line| line.resident_bytes)),
        text::bytes(sum(|line| line.remote_bytes)),
        state.order.name()
    );
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(title).style(reversed), head);
    draw_programs(frame, programs, state);
    if !state.servers.is_empty() {
        draw_servers(frame, servers, state);
    }
    draw_charts(frame, charts, &state.chosen_history());
    frame.render_widget(Paragraph::new(format!(" {}", state.said)), said);
    frame.render_widget(Paragraph::new(KEYS).style(reversed), keys);
}

fn draw_programs(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let right = |text: String| Cell::from(TextLine::from(text).right_aligned());
    let titles = [
        "PID", "BUDGET", "RESIDENT", "REMOTE", "FAULTS/S", "NET/S", "WAIT", "FULL",
    ];
    let head = titles.map(|title| right(title.to_owned()));
    let head = Row::new(head.into_iter().chain([Cell::from("COMMAND")]));
    let head = head.style(Style::new().add_modifier(Modifier::BOLD));
    let rows = state.lines.iter().map(|line| {
        let style = match line.waited_some {
            share if share > 0.5 => coloured(Color::Red),
            share if share > 0.1 => coloured(Color::Yellow),
            _ => Style::new(),
        };
        let command = Cell::from(line.command.clone());
        Row::new(line.cells().map(right).into_iter().chain([command])).style(style)
    });
    let widths = [7, 8, 8, 8, 8, 8, 4, 4].map(Constraint::Length);
    let widths = widths.into_iter().chain([Constraint::Min(8)]);
    let table = Table::new(rows, widths)
        .header(head)
        .highlight_symbol("> ")
        .row_highlight_style(Style::new().add_modifier(Modifier::BOLD));
    let mut chosen = TableState::new().with_selected(state.place());
    frame.render_stateful_widget(table, area, &mut chosen);
}

fn draw_servers(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let head = format!(
        "  {:<28} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "SERVER", "CAPACITY", "GIVEN", "STORED", "READ/S", "WRITTEN/S"
    );
    let lines = state.servers.iter().map(|server| format!("  {server}"));
    let text: Vec<TextLine<'_>> = std::iter::once(head)
        .chain(lines)
        .map(TextLine::from)
        .collect();
    frame.render_widget(Paragraph::new(text), area);
}

/// A title, what is drawn of each look, and the largest value if that is known.
type Chart = (String, fn(&Rates) -> f64, Option<u64>);

fn draw_charts(frame: &mut Frame<'_>, area: Rect, history: &[Rates]) {
    let parts = Layout::horizontal([Constraint::Ratio(1, 3); 3]).areas::<3>(area);
    let last = history.last().copied().unwrap_or_default();
    let charts: [Chart; 3] = [
        (
            format!("faults {}/s", text::count(last.faults)),
            |rates| rates.faults,
            None,
        ),
        (
            format!("waiting {}", text::percent(last.some)),
            |rates| rates.some * 1000.0,
            Some(1000),
        ),
        (
            format!("network {}/s", text::bytes(last.bytes as u64)),
            |rates| rates.bytes / 1024.0,
            None,
        ),
    ];
    for (part, (title, value, most)) in parts.into_iter().zip(charts) {
        let width = usize::from(part.width).max(1);
        let latest = &history[history.len().saturating_sub(width)..];
        let data: Vec<u64> = latest.iter().map(|rates| value(rates) as u64).collect();
        let mut chart = Sparkline::default()
            .block(Block::new().title(format!(" {title}")))
            .style(coloured(Color::Green))
            .data(&data);
        if let Some(most) = most {
            chart = chart.max(most);
        }
        frame.render_widget(chart, part);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::ps::Line;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// A line that waits for this share of the time.
    pub(in crate::control::top) fn line(pid: u32, waited: f64) -> Line {
        Line {
            pid,
            command: format!("./app{pid}"),
            budget_bytes: 64 << 20,
            resident_bytes: 60 << 20,
            remote_bytes: 100 << 20,
            faults_per_second: 1000.0,
            bytes_per_second: 1e6,
            waited_some: waited,
            waited_full: waited / 2.0,
        }
    }

    fn screen(state: &mut State) -> String {
        let mut terminal = Terminal::new(TestBackend::new(90, 16)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let row = |y| (0..90).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..16)
            .map(|y| row(y).trim_end().to_owned() + "\n")
            .collect()
    }

    #[test]
    fn programs_charts_and_keys_are_there() {
        let rates = Rates {
            faults: 1000.0,
            bytes: 1e6,
            some: 0.4,
            full: 0.2,
        };
        let mut state = State::with(vec![(line(11, 0.4), rates), (line(12, 0.6), rates)]);
        state.say("budget of 12: 70M".to_owned());
        let text = screen(&mut state);
        for words in [
            " tmem: 2 programs, resident 120M, on servers 200M; sorted by waiting",
            ">      12      64M      60M     100M     1.0k     977K  60%  30% ./app12",
            "       11      64M      60M     100M     1.0k     977K  40%  20% ./app11",
            " faults 1.0k/s",
            " waiting 40%",
            " network 977K/s",
            " budget of 12: 70M",
            "q quit",
        ] {
            assert!(text.contains(words), "{words} in\n{text}");
        }
    }

    #[test]
    fn an_empty_list_and_a_tiny_terminal_are_drawn() {
        let mut state = State::default();
        screen(&mut state);
        for size in [(1, 1), (10, 3)] {
            let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
            terminal.draw(|frame| draw(frame, &mut state)).unwrap();
        }
    }
}
