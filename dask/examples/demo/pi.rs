//! The demo's native tasks.

/// The area under 4 / (1 + x²) above the `i`-th of `n` intervals of \[0, 1\].
#[dask::task]
pub fn area(i: u32, n: u32) -> f64 {
    const STEPS: u32 = 64;
    let width = 1.0 / (f64::from(n) * f64::from(STEPS));
    let height = |step| {
        let x = (f64::from(i) * f64::from(STEPS) + f64::from(step) + 0.5) * width;
        4.0 / (1.0 + x * x)
    };
    (0..STEPS).map(height).sum::<f64>() * width
}

/// The sum of two areas.
#[dask::task]
pub fn add(a: f64, b: f64) -> f64 {
    a + b
}
