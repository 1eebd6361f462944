#[dask::task]
fn same<T>(it: T) -> T {
    it
}

fn main() {}
