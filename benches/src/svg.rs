//! Line charts as SVG files.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

/// How numbers are laid out along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from 0 on.
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
    /// The text above it.
    pub title: String,
    /// Left to right.
    pub x: Axis,
    /// Bottom to top.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

const SIZE: (u32, u32) = (760, 460);

/// The height of a chart among others.
const LOW: u32 = 300;

/// Colours that most people with colour blindness can tell apart, and that differ in grey
/// (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x8a, 0x6d, 0x00),
];

/// The numbers of an axis that are shown, with round ends.
#[derive(Clone, Copy)]
struct Ruler {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Ruler {
    fn new(scale: Scale, values: impl Iterator<Item = f64>) -> Ruler {
        let usable = |v: &f64| v.is_finite() && (scale == Scale::Linear || *v > 0.0);
        let (low, high) = values.filter(usable).fold(
            (f64::INFINITY, f64::NEG_INFINITY),
            |(low, high): (f64, f64), v| (low.min(v), high.max(v)),
        );
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        let (low, high) = match scale {
            Scale::Linear if high > 0.0 => (low.min(0.0), high),
            Scale::Linear => (low.min(0.0), low.min(0.0) + 1.0),
            Scale::Log => {
                // Whole powers of ten, at least one of them.
                let low = 10f64.powf(low.log10().floor());
                (low, 10f64.powf(high.log10().ceil()).max(low * 10.0))
            }
        };
        Ruler { scale, low, high }
    }

    /// Whether a number can be shown.
    fn shows(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// A number on an even axis.
    fn even(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log => value.log10(),
        }
    }
}

impl Ranged for Ruler {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        let (low, high) = (self.even(self.low), self.even(self.high));
        let share = (self.even(*value) - low) / (high - low);
        pixels.0 + (share * f64::from(pixels.1 - pixels.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                plotters::coord::types::RangedCoordf64::from(self.low..self.high).key_points(hint)
            }
            Scale::Log => {
                let powers = (self.high / self.low).log10().round() as i32;
                let between: &[f64] = if powers <= 2 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                let tick = |n: i32| between.iter().map(move |m| self.low * 10f64.powi(n) * m);
                let ticks = (0..=powers).flat_map(tick);
                ticks.filter(|t| *t <= self.high * 1.001).collect()
            }
        }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Ruler {
    fn format_ext(&self, value: &f64) -> String {
        number(*value)
    }
}

/// A number at a tick, short.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{}G", value / 1e9),
        v if v >= 1e6 => format!("{}M", value / 1e6),
        v if v >= 1e3 => format!("{}k", value / 1e3),
        // Without the digits that rounding leaves.
        _ => format!("{}", (value * 1000.0).round() / 1000.0),
    }
}

impl Chart {
    /// The chart as the text of a file.
    ///
    /// # Panics
    /// Never: text in memory takes all that is drawn.
    pub fn svg(&self) -> String {
        let mut out = String::new();
        self.draw(&SVGBackend::with_string(&mut out, SIZE).into_drawing_area())
            .expect("a string takes all that is drawn");
        out
    }

    fn draw(
        &self,
        area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'_> as DrawingBackend>::ErrorType>> {
        area.fill(&WHITE)?;
        let points = || self.series.iter().flat_map(|s| &s.points);
        let x = Ruler::new(self.x.scale, points().map(|p| p.0));
        let y = Ruler::new(self.y.scale, points().map(|p| p.1));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(45)
            .y_label_area_size(65)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (n, series) in self.series.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            // More lines than colours are told apart by their width.
            let style = colour.stroke_width(if n < COLOURS.len() { 2 } else { 4 });
            let shown = |p: &&(f64, f64)| x.shows(p.0) && y.shows(p.1);
            let points: Vec<(f64, f64)> = series.points.iter().filter(shown).copied().collect();
            let dots = points.iter().filter(|_| series.dots);
            let dots: Vec<_> = dots.map(|p| Circle::new(*p, 3, colour.filled())).collect();
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            chart.draw_series(dots)?;
        }
        if !self.series.is_empty() {
            let labels = &mut chart.configure_series_labels();
            labels
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK)
                .draw()?;
        }
        area.present()
    }
}

/// Charts below one another, as the text of one file.
///
/// # Panics
/// Never: text in memory takes all that is drawn.
pub fn stacked(charts: &[Chart]) -> String {
    let mut out = String::new();
    let size = (SIZE.0, LOW * charts.len() as u32);
    let area = SVGBackend::with_string(&mut out, size).into_drawing_area();
    for (chart, part) in charts.iter().zip(area.split_evenly((charts.len(), 1))) {
        chart.draw(&part).expect("a string takes all that is drawn");
    }
    // What is drawn last writes the end of the text.
    drop(area);
    out
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
        let of_series = |line: &&str| line.contains("<polyline") && line.contains("#0072B2");
        // The line itself, and its mark in the legend.
        assert_eq!(svg.lines().filter(of_series).count(), 2);
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
    fn axes_of_logarithms_begin_and_end_with_powers_of_ten() {
        let ticks = |low, high| {
            let ruler = Ruler::new(Scale::Log, [low, high].into_iter());
            ruler.key_points(10)
        };
        assert_eq!(ticks(150.0, 2e6), [1e2, 1e3, 1e4, 1e5, 1e6, 1e7]);
        assert_eq!(ticks(1.0, 7.0), [1.0, 2.0, 5.0, 10.0]);
        let texts = [0.0, 0.25, 20.0, 2e4].map(number);
        assert_eq!(texts, ["0", "0.25", "20", "20k"]);
    }
}
