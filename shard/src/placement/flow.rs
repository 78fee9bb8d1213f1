//! Minimum-cost flow: successive shortest paths with potentials.
//!
//! Edges have whole capacities and costs of zero or more. Every unit is sent along the cheapest path
//! that is left (Dijkstra over reduced costs), so the flow is the cheapest of its size at every
//! moment. Ties are broken by vertex number, so the result depends on nothing but the order in which
//! edges were added. Ahuja, Magnanti, Orlin: Network Flows, section 9.7.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// An edge of a [`Network`], as its maker names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edge(usize);

/// One direction of an edge: `arcs[2i]` runs along edge `i`, `arcs[2i + 1]` against it.
struct Arc {
    to: usize,
    room: usize,
    cost: i128,
}

/// A directed network with a flow in it.
pub(super) struct Network {
    arcs: Vec<Arc>,
    /// Per vertex: the arcs that leave it, in the order they were added.
    leaving: Vec<Vec<usize>>,
    /// Per vertex: its potential; no arc with room has a negative cost reduced by these.
    potential: Vec<i128>,
    /// Per vertex: what the running search knows of it; unreached between searches.
    search: Vec<Reached>,
}

/// How a search reached a vertex: at what reduced cost, and over which arc.
#[derive(Clone, Copy)]
struct Reached {
    distance: i128,
    by: usize,
}

/// The distance of a vertex that the search has not reached.
const UNREACHED: i128 = i128::MAX;

impl Network {
    /// A network of so many vertices and no edges.
    pub(super) fn new(vertices: usize) -> Self {
        Self {
            arcs: Vec::new(),
            leaving: vec![Vec::new(); vertices],
            potential: vec![0; vertices],
            search: vec![
                Reached {
                    distance: UNREACHED,
                    by: 0
                };
                vertices
            ],
        }
    }

    /// Adds an edge; `cost` per unit is zero or more.
    pub(super) fn edge(&mut self, from: usize, to: usize, capacity: usize, cost: i128) -> Edge {
        assert!(cost >= 0, "costs are zero or more");
        let edge = Edge(self.arcs.len() / 2);
        self.leaving[from].push(self.arcs.len());
        self.arcs.push(Arc {
            to,
            room: capacity,
            cost,
        });
        self.leaving[to].push(self.arcs.len());
        self.arcs.push(Arc {
            to: from,
            room: 0,
            cost: -cost,
        });
        edge
    }

    /// How many units flow along the edge.
    pub(super) fn flow(&self, edge: Edge) -> usize {
        self.arcs[2 * edge.0 + 1].room
    }

    /// How many more units the edge can carry.
    pub(super) fn room(&self, edge: Edge) -> usize {
        self.arcs[2 * edge.0].room
    }

    /// Sends one unit along one edge. Before the first [`Network::saturate`], and only over free edges
    /// and along whole paths: both are what keeps the flow the cheapest of its size.
    pub(super) fn push(&mut self, edge: Edge) {
        assert!(self.arcs[2 * edge.0].cost == 0, "an initial flow is free");
        self.shift(2 * edge.0);
    }

    /// Sends as much as possible from `source` to `sink` at the least cost; returns the whole flow
    /// out of `source`.
    pub(super) fn saturate(&mut self, source: usize, sink: usize) -> usize {
        while let Some(path) = self.cheapest_path(source, sink) {
            for arc in path {
                self.shift(arc);
            }
        }
        let arcs = self.leaving[source].iter();
        arcs.filter(|arc| arc.is_multiple_of(2))
            .map(|arc| self.arcs[arc + 1].room)
            .sum()
    }

    fn shift(&mut self, arc: usize) {
        self.arcs[arc].room -= 1;
        self.arcs[arc ^ 1].room += 1;
    }

    /// The arcs of a cheapest path with room, from its end to its start; updates the potentials.
    ///
    /// Only vertices that the search touched are looked at or reset: most searches end near their
    /// start, and a big network would otherwise cost its whole size for every unit.
    fn cheapest_path(&mut self, source: usize, sink: usize) -> Option<Vec<usize>> {
        let mut touched = vec![source];
        let mut settled = Vec::new();
        let mut queue = BinaryHeap::from([Reverse((0, source))]);
        self.search[source].distance = 0;
        while let Some(Reverse((so_far, vertex))) = queue.pop() {
            if so_far > self.search[vertex].distance {
                continue;
            }
            settled.push(vertex);
            if vertex == sink {
                break;
            }
            for &index in &self.leaving[vertex] {
                let arc = &self.arcs[index];
                if arc.room == 0 {
                    continue;
                }
                let total = so_far + arc.cost + self.potential[vertex] - self.potential[arc.to];
                let known = &mut self.search[arc.to];
                if total < known.distance {
                    if known.distance == UNREACHED {
                        touched.push(arc.to);
                    }
                    *known = Reached {
                        distance: total,
                        by: index,
                    };
                    queue.push(Reverse((total, arc.to)));
                }
            }
        }
        let length = self.search[sink].distance;
        let path = (length != UNREACHED).then(|| self.path_back(source, sink));
        // Reduced costs only depend on differences, so instead of raising the vertices that were not
        // settled by the length of the path, the settled ones are lowered by what they are short of it.
        for vertex in settled.into_iter().filter(|_| length != UNREACHED) {
            self.potential[vertex] += self.search[vertex].distance - length;
        }
        for vertex in touched {
            self.search[vertex] = Reached {
                distance: UNREACHED,
                by: 0,
            };
        }
        path
    }

    fn path_back(&self, source: usize, sink: usize) -> Vec<usize> {
        let mut path = Vec::new();
        let mut vertex = sink;
        while vertex != source {
            let arc = self.search[vertex].by;
            path.push(arc);
            vertex = self.arcs[arc ^ 1].to;
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_unit_pushes_an_earlier_one_aside() {
        // Vertices: source 0, a 1, b 2, x 3, y 4, sink 5. `a` takes cheap `x` first; `b` only reaches
        // `x`, so `a` must move to `y`.
        let mut network = Network::new(6);
        network.edge(0, 1, 1, 0);
        network.edge(0, 2, 1, 0);
        let a_to_x = network.edge(1, 3, 1, 0);
        let a_to_y = network.edge(1, 4, 1, 5);
        let b_to_x = network.edge(2, 3, 1, 1);
        network.edge(3, 5, 1, 0);
        network.edge(4, 5, 1, 0);
        assert_eq!(network.saturate(0, 5), 2);
        let flows = [a_to_x, a_to_y, b_to_x].map(|edge| network.flow(edge));
        assert_eq!(flows, [0, 1, 1]);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut network = Network::new(3);
        network.edge(0, 1, 7, 0);
        let narrow = network.edge(1, 2, 3, 1);
        assert_eq!(network.saturate(0, 2), 3);
        assert_eq!((network.flow(narrow), network.room(narrow)), (3, 0));
    }
}
