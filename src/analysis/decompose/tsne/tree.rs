//! Points of the plane in a quadtree, so that far groups push as one point: Barnes and Hut 1986,
//! <https://doi.org/10.1038/324446a0>.
//!
//! Points are sorted along a Z-shaped curve, so that a cell of the tree is a stretch of them; cells lie
//! in the order of a walk, each with the place to go on at when it is not opened.

/// Most points that are not divided further.
const LEAF: usize = 8;
/// Levels of the tree: bits of each coordinate.
const DEPTH: u32 = 31;

pub(super) struct Tree {
    /// Coordinates in the order of the curve.
    points: Vec<[f64; 2]>,
    cells: Vec<Cell>,
}

#[derive(Clone, Copy)]
struct Cell {
    /// Centre of its points.
    at: [f64; 2],
    /// How many they are.
    mass: f64,
    /// Squared distance beyond which they count as one.
    reach: f64,
    /// The next cell outside it.
    skip: u32,
    /// Its points, if it is not divided further; else none.
    start: u32,
    end: u32,
}

impl Tree {
    /// A tree of points, x and y in turn; a cell of width `w` counts as one point from `w / theta` on.
    pub(super) fn new(points: &[f64], theta: f64) -> Self {
        let (mut low, mut high) = ([f64::INFINITY; 2], [f64::NEG_INFINITY; 2]);
        for point in points.chunks_exact(2) {
            for axis in 0..2 {
                low[axis] = low[axis].min(point[axis]);
                high[axis] = high[axis].max(point[axis]);
            }
        }
        let width = (high[0] - low[0]).max(high[1] - low[1]).max(f64::MIN_POSITIVE);
        let scale = f64::from((1u32 << DEPTH) - 1) / width;
        let place = |point: &[f64], axis: usize| ((point[axis] - low[axis]) * scale) as u32;
        let mut order: Vec<(u64, u32)> = points
            .chunks_exact(2)
            .enumerate()
            .map(|(i, point)| (spread(place(point, 0)) << 1 | spread(place(point, 1)), i as u32))
            .collect();
        order.sort_unstable();
        let sorted =
            order.iter().map(|(_, i)| [points[2 * *i as usize], points[2 * *i as usize + 1]]);
        let mut tree = Tree { points: sorted.collect(), cells: Vec::new() };
        let keys: Vec<u64> = order.iter().map(|(key, _)| *key).collect();
        tree.add(&keys, 0, keys.len(), 0, (width / theta.max(f64::MIN_POSITIVE)).powi(2));
        tree
    }

    /// Adds the cell of points `start..end`, which agree in the first `level` bits, and those within;
    /// gives their sum.
    fn add(&mut self, keys: &[u64], start: usize, end: usize, level: u32, reach: f64) -> [f64; 2] {
        let own = self.cells.len();
        let leaf = end - start <= LEAF || level == DEPTH;
        let (first, last) = if leaf { (start as u32, end as u32) } else { (0, 0) };
        let mass = (end - start) as f64;
        self.cells.push(Cell { at: [0.0; 2], mass, reach, skip: 0, start: first, end: last });
        let mut sum = [0.0; 2];
        if leaf {
            for point in &self.points[start..end] {
                sum = [sum[0] + point[0], sum[1] + point[1]];
            }
        } else {
            let shift = 2 * (DEPTH - 1 - level);
            let mut from = start;
            while from < end {
                let quarter = keys[from] >> shift;
                let to = from + keys[from..end].partition_point(|key| key >> shift == quarter);
                let part = self.add(keys, from, to, level + 1, reach / 4.0);
                sum = [sum[0] + part[0], sum[1] + part[1]];
                from = to;
            }
        }
        let skip = self.cells.len() as u32;
        self.cells[own].at = [sum[0] / mass, sum[1] / mass];
        self.cells[own].skip = skip;
        sum
    }

    /// At one of the points: the sum over all others of `(p - q) / (1 + d²)²`, x and y, and of
    /// `1 / (1 + d²)`.
    pub(super) fn repulsion(&self, px: f64, py: f64) -> (f64, f64, f64) {
        let (mut x, mut y, mut z) = (0.0, 0.0, -1.0); // less the point itself
        let mut at = 0;
        while let Some(cell) = self.cells.get(at) {
            if cell.end > 0 {
                for point in &self.points[cell.start as usize..cell.end as usize] {
                    let (dx, dy) = (px - point[0], py - point[1]);
                    let near = 1.0 / (1.0 + dx * dx + dy * dy);
                    z += near;
                    x += near * near * dx;
                    y += near * near * dy;
                }
                at += 1;
                continue;
            }
            let (dx, dy) = (px - cell.at[0], py - cell.at[1]);
            let distance = dx * dx + dy * dy;
            if distance > cell.reach {
                let near = 1.0 / (1.0 + distance);
                let all = cell.mass * near;
                z += all;
                x += all * near * dx;
                y += all * near * dy;
                at = cell.skip as usize;
            } else {
                at += 1;
            }
        }
        (x, y, z)
    }
}

/// The bits of a number, a zero before each.
fn spread(bits: u32) -> u64 {
    let mut x = u64::from(bits);
    x = (x | x << 16) & 0x0000_ffff_0000_ffff;
    x = (x | x << 8) & 0x00ff_00ff_00ff_00ff;
    x = (x | x << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    x = (x | x << 2) & 0x3333_3333_3333_3333;
    (x | x << 1) & 0x5555_5555_5555_5555
}
