//! The picture: time to the right, a group of lanes per node, faults as bands behind them.
//!
//! A fault's band is strong at the nodes that it strikes and faint at the others; from its end until the nodes are
//! ready again it is hatched. A lane's columns are as high as its operations are many; what failed stands on top in
//! colours that are seen from afar, never less than two pixels high. Under each lane a line shows while somebody was
//! waiting for an error.

use super::{
    bins::{Bins, FATES, Lane, SORTS},
    escape,
};
use crate::{
    checker::{Timeline, Verdict},
    history::{History, Micros},
};
use std::fmt::Write;

/// Width of a bin.
const BIN: usize = 3;
/// Height of a lane's columns, of the line under them, and of the space to the next lane.
const LANE: usize = 26;
const LINE: usize = 3;
const GAP: usize = 7;
/// Space between two nodes.
const NODE_GAP: usize = 14;
/// Height of a row of fault names, and how many there are at most: names that fit nowhere are seen by hovering.
const NAME_ROW: usize = 15;
const NAME_ROWS_MAX: usize = 6;
/// Width of a letter of a fault's name, about.
const LETTER: usize = 7;
/// Height of the axis, and of the row of violations.
const AXIS: usize = 22;
const MARKS: usize = 14;
/// The smallest part of a column that is an error.
const ERROR_MIN: f64 = 2.0;
/// About how far ticks of the axis are apart.
const TICK: usize = 90;

/// The picture, and the names of its lanes with their places, for what stands beside it.
pub(super) struct Picture {
    /// An `svg` element.
    pub(super) svg: String,
    /// Height of the whole.
    pub(super) height: usize,
    /// Text, whether it is a node's name, and the middle of its place.
    pub(super) labels: Vec<(String, bool, usize)>,
}

/// Where things are.
struct Layout {
    width: usize,
    /// Where lanes begin.
    top: usize,
    /// Where each lane begins.
    lanes: Vec<usize>,
    /// Begin and end of each node's lanes.
    nodes: Vec<(usize, usize)>,
    bottom: usize,
    end: Micros,
}

impl Layout {
    fn new(bins: &Bins, nodes: usize, name_rows: usize) -> Self {
        let top = name_rows * NAME_ROW + MARKS;
        let mut y = top + NODE_GAP;
        let mut layout = Self {
            width: bins.count * BIN,
            top,
            lanes: Vec::new(),
            nodes: Vec::new(),
            bottom: 0,
            end: bins.end,
        };
        for node in 0..nodes {
            let begin = y;
            for _ in bins.lanes.iter().filter(|lane| lane.node == node) {
                layout.lanes.push(y);
                y += LANE + LINE + GAP;
            }
            layout.nodes.push((begin, y));
            y += NODE_GAP;
        }
        layout.bottom = y;
        layout
    }

    fn x(&self, at: Micros) -> f64 {
        at as f64 / self.end as f64 * self.width as f64
    }
}

pub(super) fn draw(history: &History, verdict: &Verdict, bins: &Bins) -> Picture {
    let timeline = Timeline::new(history);
    let width = bins.count * BIN;
    let names = place_names(&timeline, bins, width);
    let rows = names.iter().flatten().map(|(_, row)| row + 1).max();
    let layout = Layout::new(bins, history.run.nodes.len(), rows.unwrap_or(0));
    let height = layout.bottom + AXIS;
    let mut svg = format!(
        "<svg id=\"picture\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"operations and faults over time\"><defs><pattern id=\"hatch\" width=\"6\" height=\"6\" \
         patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\"><rect width=\"2\" height=\"6\" \
         class=\"hatch\"/></pattern></defs>"
    );
    draw_axis(&mut svg, &layout);
    draw_faults(&mut svg, history, &timeline, &layout, &names);
    for (lane, y) in bins.lanes.iter().zip(&layout.lanes) {
        draw_lane(&mut svg, lane, *y, layout.width);
    }
    draw_marks(&mut svg, verdict, &layout);
    svg.push_str("<line id=\"cursor\" y1=\"0\" y2=\"0\" x1=\"-9\" x2=\"-9\"/></svg>");
    let mut labels = Vec::new();
    for (name, (begin, _)) in history.run.nodes.iter().zip(&layout.nodes) {
        labels.push((name.clone(), true, *begin));
    }
    for (lane, y) in bins.lanes.iter().zip(&layout.lanes) {
        labels.push((SORTS[lane.sort].to_owned(), false, y + LANE / 2));
    }
    Picture {
        svg,
        height,
        labels,
    }
}

/// For every fault where its name begins and in which row, if it fits: the first row in which nothing is in its way.
fn place_names(timeline: &Timeline<'_>, bins: &Bins, width: usize) -> Vec<Option<(usize, usize)>> {
    let mut free = [0; NAME_ROWS_MAX];
    let places = timeline.faults().iter().map(|(span, fault)| {
        let long = fault.kind.len() * LETTER;
        let begin = (bins.at(span.from) * BIN).min(width.saturating_sub(long));
        let row = free.iter().position(|end| *end <= begin)?;
        free[row] = begin + long + LETTER;
        Some((begin, row))
    });
    places.collect()
}

fn draw_axis(svg: &mut String, layout: &Layout) {
    let seconds = layout.end as f64 / 1e6;
    let steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
    let room = (layout.width / TICK).max(1) as f64;
    let step = steps
        .into_iter()
        .find(|step| seconds / *step as f64 <= room);
    let step = step.unwrap_or(3600);
    for second in (0..=seconds as u64).step_by(step) {
        let x = layout.x(second * 1_000_000);
        let (top, bottom) = (layout.top, layout.bottom);
        let text = match second {
            0..120 => format!("{second} s"),
            _ => format!("{}:{:02}", second / 60, second % 60),
        };
        let y = bottom + AXIS - 7;
        // Written to a string: cannot fail.
        let _written = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/><text class=\"tick\" \
             x=\"{:.1}\" y=\"{y}\">{text}</text>",
            x + 3.0,
        );
    }
}

fn draw_faults(
    svg: &mut String,
    history: &History,
    timeline: &Timeline<'_>,
    layout: &Layout,
    names: &[Option<(usize, usize)>],
) {
    for ((span, fault), name) in timeline.faults().iter().zip(names) {
        let (begin, end, settled) = (
            layout.x(span.from),
            layout.x(fault.ended.min(span.to)),
            layout.x(span.to),
        );
        let (top, bottom) = (layout.top, layout.bottom);
        let _written = write!(
            svg,
            "<g class=\"fault\" data-tell=\"{}\"><rect class=\"faint\" x=\"{begin:.1}\" y=\"{top}\" width=\"{:.1}\" \
             height=\"{}\"/>",
            escape(&tell_fault(history, fault, span.to)),
            (settled - begin).max(1.0),
            bottom - top,
        );
        for node in &fault.nodes {
            let Some((from, to)) = layout.nodes.get(*node) else {
                continue;
            };
            let (from, high) = (from - 5, to - from + 5);
            let _written = write!(
                svg,
                "<rect class=\"strong\" x=\"{begin:.1}\" y=\"{from}\" width=\"{:.1}\" height=\"{high}\"/><rect \
                 fill=\"url(#hatch)\" x=\"{end:.1}\" y=\"{from}\" width=\"{:.1}\" height=\"{high}\"/>",
                (end - begin).max(1.0),
                (settled - end).max(0.0),
            );
        }
        if let Some((x, row)) = name {
            let (y, kind) = ((row + 1) * NAME_ROW - 4, escape(&fault.kind));
            let _written = write!(
                svg,
                "<line class=\"stem\" x1=\"{begin:.1}\" x2=\"{begin:.1}\" y1=\"{y}\" y2=\"{top}\"/><text class=\"name\" \
                 x=\"{}\" y=\"{y}\">{kind}</text>",
                x + 3,
            );
        }
        svg.push_str("</g>");
    }
}

fn tell_fault(history: &History, fault: &crate::history::Fault, settled: Micros) -> String {
    let names = fault.nodes.iter().map(|node| history.node_name(*node));
    let names = names.collect::<Vec<_>>().join(", ");
    let seconds = |at: Micros| format!("{:.1} s", at as f64 / 1e6);
    let ready = match fault.recovered {
        Some(_) => format!("ready again at {}", seconds(settled)),
        None => "never ready again".to_owned(),
    };
    format!(
        "{} at {names}\n{} to {}, {ready}\n{}\nstruck {} times",
        fault.kind,
        seconds(fault.begun),
        seconds(fault.ended),
        fault.details,
        fault.struck
    )
}

/// Columns of one fate are one path.
fn draw_lane(svg: &mut String, lane: &Lane, y: usize, width: usize) {
    let floor = y + LANE;
    let _written = write!(
        svg,
        "<line class=\"floor\" x1=\"0\" x2=\"{width}\" y1=\"{floor}\" y2=\"{floor}\"/>"
    );
    let most = lane
        .counts
        .iter()
        .map(|fates| fates.iter().sum::<u32>())
        .max();
    let scale = LANE as f64 / f64::from(most.unwrap_or(0).max(1));
    let mut paths = [const { String::new() }; FATES.len()];
    for (bin, fates) in lane.counts.iter().enumerate() {
        let mut base = floor as f64;
        for (fate, count) in fates.iter().enumerate().filter(|(_, count)| **count > 0) {
            let least = if fate == 0 { 0.5 } else { ERROR_MIN };
            let high = (f64::from(*count) * scale).max(least);
            base -= high;
            let (x, wide) = (bin * BIN, BIN);
            let _written = write!(paths[fate], "M{x} {base:.1}h{wide}v{high:.1}h-{wide}z");
        }
    }
    for (fate, path) in FATES.iter().zip(paths).filter(|(_, path)| !path.is_empty()) {
        let _written = write!(svg, "<path class=\"{fate}\" d=\"{path}\"/>");
    }
    let mut line = String::new();
    let mut bin = 0;
    for run in lane.erring.chunk_by(|one, other| one == other) {
        if run[0] {
            let (x, wide) = (bin * BIN, run.len() * BIN);
            let _written = write!(line, "M{x} {}h{wide}v{LINE}h-{wide}z", floor + 1);
        }
        bin += run.len();
    }
    if !line.is_empty() {
        let _written = write!(svg, "<path class=\"erring\" d=\"{line}\"/>");
    }
}

/// A triangle for every violation that has a time.
fn draw_marks(svg: &mut String, verdict: &Verdict, layout: &Layout) {
    for violation in &verdict.violations {
        let Some(at) = violation.at else {
            continue;
        };
        let (x, y) = (layout.x(at), layout.top);
        let tell = escape(&format!("{}: {}", violation.checker, violation.text));
        let _written = write!(
            svg,
            "<g class=\"mark\" data-tell=\"{tell}\"><line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{}\"/><path \
             d=\"M{x:.1} {y}l-6 -11h12z\"/></g>",
            layout.bottom,
        );
    }
}
