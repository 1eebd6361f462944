//! Paths through runnable nodes, sharing their common beginnings.
//!
//! Branches of a path differ only in their last nodes, so a path is its last step and each step knows the one before it.

/// The last step of a path.
pub(super) type PathId = u32;

struct Step {
    node: u32,
    before: Option<PathId>,
    /// Whether the steps up to here form one chain, each node depending on nothing but the one before it.
    chain: bool,
}

/// All paths of one traversal.
#[derive(Default)]
pub(super) struct Paths {
    steps: Vec<Step>,
}

impl Paths {
    fn add(&mut self, step: Step) -> PathId {
        self.steps.push(step);
        super::count32(self.steps.len() - 1)
    }

    /// A path of one node.
    pub(super) fn start(&mut self, node: u32) -> PathId {
        self.add(Step { node, before: None, chain: true })
    }

    /// The path with one more node.
    pub(super) fn extend(&mut self, path: PathId, node: u32) -> PathId {
        let chain = self.steps[path as usize].chain;
        self.add(Step { node, before: Some(path), chain })
    }

    /// All of `paths`, one after the other, as one path.
    pub(super) fn join(&mut self, paths: &[PathId]) -> Option<PathId> {
        let mut last = None;
        for &path in paths {
            for node in self.forward(path, |_| false) {
                last = Some(self.add(Step { node, before: last, chain: false }));
            }
        }
        last
    }

    /// The last node.
    pub(super) fn tip(&self, path: PathId) -> u32 {
        self.steps[path as usize].node
    }

    /// The node before the last, `None` when the path has one node only.
    pub(super) fn before_tip(&self, path: PathId) -> Option<u32> {
        self.steps[path as usize].before.map(|before| self.tip(before))
    }

    /// The nodes from last to first. A chain ends at its first done node: what lies before that is done as well.
    pub(super) fn backward(&self, path: PathId, is_done: impl Fn(u32) -> bool) -> impl Iterator<Item = u32> {
        std::iter::successors(Some(path), |&p| self.steps[p as usize].before)
            .map(|p| &self.steps[p as usize])
            .take_while(move |step| !(step.chain && is_done(step.node)))
            .map(|step| step.node)
    }

    /// The nodes from first to last, without the done beginning of a chain.
    pub(super) fn forward(&self, path: PathId, is_done: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut nodes: Vec<u32> = self.backward(path, is_done).collect();
        nodes.reverse();
        nodes
    }

    /// Forgets every path.
    pub(super) fn clear(&mut self) {
        self.steps.clear();
    }
}
