use super::*;

/// Orders lists of dependencies by name; the name of node `n` is its number.
fn order_of(lists: &[Vec<u32>], literals: &[u32]) -> Vec<u32> {
    let topology = Topology::new(lists.iter().map(Vec::as_slice));
    let keys: Vec<Key> = topology.nodes().map(|n| Key::from(format!("{n:06}"))).collect();
    let keys: Vec<&Key> = keys.iter().collect();
    order(&topology, |n| !literals.contains(&n), &keys).expect("acyclic")
}

fn held(lists: &[Vec<u32>], order: &[u32]) -> Held {
    Held::most(&Topology::new(lists.iter().map(Vec::as_slice)), order)
}

fn peak(lists: &[Vec<u32>], order: &[u32]) -> usize {
    held(lists, order).all
}

#[test]
fn what_is_read_early_is_not_held() {
    let pairs: Vec<Vec<u32>> = vec![vec![], vec![], vec![], vec![], vec![0, 1], vec![2, 3], vec![4, 5]];
    assert_eq!(held(&pairs, &[0, 1, 3, 4, 2, 5, 6]), Held { intermediates: 4, all: 4 });
    assert_eq!(held(&pairs, &[0, 1, 2, 3, 4, 5, 6]), Held { intermediates: 5, all: 5 });
}

fn assert_valid(lists: &[Vec<u32>], order: &[u32]) {
    let mut numbers = order.to_vec();
    numbers.sort_unstable();
    assert!(numbers.iter().copied().eq(0..count32(lists.len())), "not a permutation: {order:?}");
    for (node, list) in lists.iter().enumerate() {
        for &need in list {
            assert!(order[need as usize] < order[node], "{node} is ordered before its dependency {need}");
        }
    }
}

/// Small reproducible numbers (xorshift).
struct Dice(u64);
impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn random_graph(seed: u64) -> Vec<Vec<u32>> {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let nodes = 1 + dice.below(60);
    (0..nodes)
        .map(|node| {
            let fan = dice.below(4).min(node);
            (0..fan).map(|_| u32::try_from(dice.below(node)).expect("small")).collect()
        })
        .collect()
}

#[test]
fn every_order_is_a_permutation_with_dependencies_first() {
    for seed in 1..400 {
        let mut lists = random_graph(seed);
        lists.iter_mut().for_each(|list| {
            list.sort_unstable();
            list.dedup();
        });
        let roots: Vec<u32> =
            (0..count32(lists.len())).filter(|&n| lists[n as usize].is_empty() && n % 2 == 0).collect();
        for literals in [&[][..], &roots] {
            let order = order_of(&lists, literals);
            assert_valid(&lists, &order);
            assert_eq!(order, order_of(&lists, literals), "the order is deterministic");
        }
    }
}

#[test]
fn chains_are_run_one_after_the_other() {
    // ten chains of five: never more than one intermediate at a time beside the finished ends
    let lists: Vec<Vec<u32>> = (0..50).map(|n| if n % 5 == 0 { vec![] } else { vec![n - 1] }).collect();
    let order = order_of(&lists, &[]);
    assert_valid(&lists, &order);
    for chain in order.chunks(5) {
        assert_eq!(chain[4] - chain[0], 4, "a chain is not interrupted");
    }
}

#[test]
fn tree_reductions_hold_little() {
    // 64 leaves of data reduced pairwise: a depth-first order holds about log2(64) + 1
    let mut lists: Vec<Vec<u32>> = vec![vec![]; 64];
    let mut level: Vec<u32> = (0..64).collect();
    while level.len() > 1 {
        let next: Vec<u32> = level
            .chunks(2)
            .map(|pair| {
                lists.push(pair.to_vec());
                count32(lists.len() - 1)
            })
            .collect();
        level = next;
    }
    let order = order_of(&lists, &[]);
    assert_valid(&lists, &order);
    assert!(peak(&lists, &order) <= 8, "held {}", peak(&lists, &order));
}

#[test]
fn shared_literals_do_not_tie_tasks_together() {
    // one literal used by all of many chains is numbered first and changes nothing else
    let mut lists: Vec<Vec<u32>> = vec![vec![]];
    for chain in 0..5_u32 {
        lists.push(vec![0]);
        lists.push(vec![1 + 2 * chain]);
    }
    let order = order_of(&lists, &[0]);
    assert_valid(&lists, &order);
    assert_eq!(order[0], 0);
    for chain in order[1..].chunks(2) {
        assert_eq!(chain[1], chain[0] + 1);
    }
}

#[test]
fn external_nodes_take_no_number() {
    let lists: [&[u32]; 2] = [&[2], &[0, 3]];
    let topology = Topology::new(lists.into_iter());
    let keys: Vec<Key> = ["a", "b", "x", "y"].map(Key::from).to_vec();
    assert_eq!(order(&topology, |_| true, &keys.iter().collect::<Vec<_>>()), Ok(vec![0, 1]));
}

#[test]
fn a_cycle_is_an_error_that_names_its_keys() {
    let lists: [&[u32]; 3] = [&[1], &[0], &[0]];
    let topology = Topology::new(lists.into_iter());
    let keys: Vec<Key> = ["a", "b", "c"].map(Key::from).to_vec();
    let cycle = order(&topology, |_| true, &keys.iter().collect::<Vec<_>>()).expect_err("cyclic");
    assert_eq!(cycle.to_string(), "Cycle detected between the following keys:\n  -> a\n  -> b");
}

#[test]
fn nothing_to_order() {
    assert_eq!(order(&Topology::new([].into_iter()), |_| true, &[]), Ok(vec![]));
}

#[test]
fn deep_and_wide_graphs_need_no_recursion() {
    let comb: Vec<Vec<u32>> =
        (0..20_000).map(|n| if n == 0 { vec![] } else { vec![if n % 2 == 0 { n - 2 } else { n - 1 }] }).collect();
    assert_valid(&comb, &order_of(&comb, &[]));
    let running_sum: Vec<Vec<u32>> =
        (0..6_000_u32).map(|n| if n % 2 == 0 { vec![] } else { vec![n - 1, n.saturating_sub(2)] }).collect();
    let running_sum: Vec<Vec<u32>> = running_sum
        .into_iter()
        .map(|mut list| {
            list.sort_unstable();
            list.dedup();
            list
        })
        .collect();
    assert_valid(&running_sum, &order_of(&running_sum, &[]));
}

/// A graph recorded by `tests/data/make_orders.py`.
#[derive(serde::Deserialize)]
struct Recorded {
    name: String,
    needs: Vec<Vec<u32>>,
    literals: Vec<u32>,
    /// dask's order, unless it depends on the hash seed.
    order: Option<Vec<u32>>,
    /// The most results held at once in dask's order.
    peak: usize,
}

#[test]
fn orders_are_dasks_where_dask_is_deterministic_or_hold_less() {
    let text = include_str!("../../../tests/data/orders.json");
    let graphs: Vec<Recorded> = serde_json::from_str(text).expect("recorded graphs");
    assert!(graphs.len() > 20);
    for Recorded { name, needs, literals, order, peak: held } in graphs {
        let ours = order_of(&needs, &literals);
        assert_valid(&needs, &ours);
        let most = peak(&needs, &ours);
        assert!(most <= held, "{name}: {most} held, dask holds {held}");
        // Begun at the other end it may hold less.
        if let Some(order) = order.filter(|order| !self::held(&needs, &ours).is_less_than(self::held(&needs, order))) {
            assert_eq!(ours, order, "{name}");
        }
    }
}
