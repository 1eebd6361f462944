//! Keeping what the wanted keys reach.

use petgraph::visit::{Dfs, Visitable};

use super::topology::Topology;

/// Which tasks of `topology` the wanted nodes need, themselves included; external nodes are left out.
pub fn cull(topology: &Topology, wanted: impl IntoIterator<Item = u32>) -> Vec<bool> {
    let mut reached = vec![false; topology.tasks];
    let edges = &topology.dependencies;
    let mut walk = Dfs::from_parts(wanted.into_iter().collect(), edges.visit_map());
    while let Some(node) = walk.next(edges) {
        if let Some(reached) = reached.get_mut(node as usize) {
            *reached = true;
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_is_wanted_and_below() {
        // 0 <- 1 <- 2, 3 alone, 4 needs the external 5
        let lists: [&[u32]; 5] = [&[], &[0], &[1], &[], &[5]];
        let topology = Topology::new(lists.into_iter());
        assert_eq!(cull(&topology, [1]), [true, true, false, false, false]);
        assert_eq!(cull(&topology, [2, 4]), [true, true, true, false, true]);
        assert_eq!(cull(&topology, []), [false; 5]);
    }
}
