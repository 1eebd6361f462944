#[dask::task]
fn push(list: &mut Vec<i64>) {
    list.push(1);
}

fn main() {}
