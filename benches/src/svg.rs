//! Line charts as SVG: axes, ticks, lines and a legend.

use std::fmt::Write as _;

/// How numbers are laid out along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; numbers that are not positive are left out.
    Log,
}

/// A direction of a chart.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What the numbers are, with their unit.
    pub label: String,
    /// How they are laid out.
    pub scale: Scale,
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// Whether each point has a dot.
    pub dots: bool,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// Left to right.
    pub x: Axis,
    /// Bottom to top.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;

/// Told apart by most people who see colours differently, and in grey.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00",
];

/// From numbers to places along an axis.
struct Ruler {
    scale: Scale,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Ruler {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Ruler {
        let usable = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
        let (mut low, mut high) = values
            .filter(usable)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
                (l.min(v), h.max(v))
            });
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        match scale {
            Scale::Linear => {
                low = low.min(0.0);
                let step = step(high - low);
                high = if step > 0.0 {
                    (high / step).ceil() * step
                } else {
                    low + 1.0
                };
            }
            Scale::Log => {
                // Whole powers of ten, at least one of them.
                low = 10f64.powf(low.log10().floor());
                high = 10f64.powf(high.log10().ceil()).max(low * 10.0);
            }
        }
        Ruler {
            scale,
            low,
            high,
            from,
            to,
        }
    }

    /// Where a number is, if it can be shown.
    fn at(&self, value: f64) -> Option<f64> {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log if value <= 0.0 => return None,
            Scale::Log => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        share
            .is_finite()
            .then_some(self.from + share * (self.to - self.from))
    }

    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.high - self.low);
                let count = ((self.high - self.low) / step).round() as i32;
                (0..=count)
                    .map(|n| self.low + f64::from(n) * step)
                    .collect()
            }
            Scale::Log => {
                let powers = (self.high / self.low).log10().round() as i32;
                let power = |n: i32| self.low * 10f64.powi(n);
                let between: &[f64] = if powers <= 2 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                let ticks = (0..=powers).flat_map(|n| between.iter().map(move |m| power(n) * m));
                ticks.filter(|t| *t <= self.high * 1.001).collect()
            }
        }
    }
}

/// A round number that goes into `range` four to ten times.
fn step(range: f64) -> f64 {
    if range <= 0.0 {
        return 0.0;
    }
    let power = 10f64.powf((range / 4.0).log10().floor());
    let times = range / 4.0 / power;
    power
        * if times >= 5.0 {
            5.0
        } else if times >= 2.0 {
            2.0
        } else {
            1.0
        }
}

/// A number at a tick, short.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 1e9 => return format!("{}G", value / 1e9),
        v if v >= 1e6 => return format!("{}M", value / 1e6),
        v if v >= 1e3 => return format!("{}k", value / 1e3),
        _ => format!("{value:.3}"),
    };
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    if digits.is_empty() {
        "0".to_owned()
    } else {
        digits.to_owned()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

impl Chart {
    /// The chart as a file.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|s| &s.points);
        let x = Ruler::new(self.x.scale, points().map(|p| p.0), LEFT, WIDTH - RIGHT);
        let y = Ruler::new(self.y.scale, points().map(|p| p.1), HEIGHT - BOTTOM, TOP);
        let mut out = String::new();
        self.frame(&mut out, &x, &y);
        for (n, series) in self.series.iter().enumerate() {
            line(&mut out, series, n, &x, &y);
        }
        out.push_str("</svg>\n");
        out
    }

    fn frame(&self, out: &mut String, x: &Ruler, y: &Ruler) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let middle = (LEFT + right) / 2.0;
        let mut put = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        put(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">"
        ));
        put(format!(
            "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>"
        ));
        put(text(
            middle,
            24.0,
            "middle",
            "font-size=\"15\"",
            &self.title,
        ));
        for (value, at) in x.ticks().into_iter().filter_map(|t| Some((t, x.at(t)?))) {
            put(rule((at, TOP), (at, bottom), "#ddd"));
            put(text(at, bottom + 18.0, "middle", "", &number(value)));
        }
        for (value, at) in y.ticks().into_iter().filter_map(|t| Some((t, y.at(t)?))) {
            put(rule((LEFT, at), (right, at), "#ddd"));
            put(text(LEFT - 6.0, at + 4.0, "end", "", &number(value)));
        }
        put(rule((LEFT, TOP), (LEFT, bottom), "#333"));
        put(rule((LEFT, bottom), (right, bottom), "#333"));
        put(text(middle, HEIGHT - 18.0, "middle", "", &self.x.label));
        let turned = format!("transform=\"rotate(-90 20 {HEIGHT_MIDDLE})\"");
        put(text(20.0, HEIGHT_MIDDLE, "middle", &turned, &self.y.label));
    }
}

const HEIGHT_MIDDLE: f64 = (TOP + HEIGHT - BOTTOM) / 2.0;

fn text(x: f64, y: f64, anchor: &str, more: &str, words: &str) -> String {
    let words = escaped(words);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>")
}

fn rule(from: (f64, f64), to: (f64, f64), colour: &str) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>",
        from.0, from.1, to.0, to.1
    )
}

/// A series, and its entry in the legend.
fn line(out: &mut String, series: &Series, n: usize, x: &Ruler, y: &Ruler) {
    let colour = COLOURS[n % COLOURS.len()];
    // More lines than colours are told apart by dashes.
    let dashes = if n < COLOURS.len() {
        ""
    } else {
        " stroke-dasharray=\"6 3\""
    };
    let places: Vec<(f64, f64)> = series
        .points
        .iter()
        .filter_map(|p| Some((x.at(p.0)?, y.at(p.1)?)))
        .collect();
    let mut path = String::new();
    for (x, y) in &places {
        // Writing to a string does not fail.
        let _ = write!(path, "{x:.1},{y:.1} ");
    }
    let path = path.trim_end();
    let _ = writeln!(
        out,
        "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>"
    );
    for (x, y) in places.iter().filter(|_| series.dots) {
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
    }
    let (left, top) = (WIDTH - RIGHT + 14.0, TOP + 12.0 + 20.0 * n as f64);
    let _ = writeln!(
        out,
        "<line x1=\"{left}\" y1=\"{top}\" x2=\"{}\" y2=\"{top}\" stroke=\"{colour}\" \
         stroke-width=\"2\"{dashes}/>",
        left + 20.0
    );
    let name = text(left + 26.0, top + 4.0, "start", "", &series.name);
    let _ = writeln!(out, "{name}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, scale: Scale) -> Chart {
        Chart {
            title: "a < b & c".to_owned(),
            x: Axis {
                label: "x".to_owned(),
                scale: Scale::Linear,
            },
            y: Axis {
                label: "y".to_owned(),
                scale,
            },
            series: vec![Series {
                name: "line".to_owned(),
                points,
                dots: true,
            }],
        }
    }

    #[test]
    fn a_chart_has_its_parts() {
        let svg = chart(vec![(50.0, 10.0), (100.0, 1.0), (0.0, 0.0)], Scale::Log).svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b &amp; c"));
        // What has no logarithm is left out.
        assert_eq!(svg.matches("<circle").count(), 2);
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert!(svg.contains("points=\"345.0,40.0 610.0,400.0\""), "{svg}");
    }

    #[test]
    fn nothing_and_one_point_are_charts_too() {
        for points in [vec![], vec![(0.0, 0.0)], vec![(3.0, 3.0)]] {
            for scale in [Scale::Linear, Scale::Log] {
                let svg = chart(points.clone(), scale).svg();
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn ticks_are_round_and_reach_the_ends() {
        let ruler = |scale, low, high| Ruler::new(scale, [low, high].into_iter(), 0.0, 1.0);
        let ticks = ruler(Scale::Linear, 12.5, 100.0).ticks();
        assert_eq!(ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let ticks = ruler(Scale::Log, 150.0, 2e6).ticks();
        assert_eq!(ticks, [1e2, 1e3, 1e4, 1e5, 1e6, 1e7]);
        let ticks = ruler(Scale::Log, 1.0, 7.0).ticks();
        assert_eq!(ticks, [1.0, 2.0, 5.0, 10.0]);
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.25), "0.25");
        assert_eq!(number(20.0), "20");
        assert_eq!(number(2e4), "20k");
    }
}
