//! Elementary functions built from IEEE basic arithmetic alone.
//!
//! The platform's `sinf` and `expf` differ in their last bits, and a picture must not depend on the
//! machine that draws it. These are also several times faster. They are accurate to what an 8-bit
//! picture can show (about 1e-3), not to the last bit: use them for drawing, never for measuring.

/// Largest integer not above `x`, for `|x| < 2^31`.
#[inline]
pub(crate) fn floor(x: f32) -> i32 {
    let truncated = x as i32;
    truncated - i32::from(x < truncated as f32)
}

/// `x` less its floor: in `[0, 1)`.
#[inline]
pub(crate) fn fraction(x: f32) -> f32 {
    x - floor(x) as f32
}

/// Sine of an angle in turns.
#[inline]
pub(crate) fn sin_turns(turns: f32) -> f32 {
    let centred = turns - floor(turns + 0.5) as f32;
    let parabola = centred * (8.0 - 16.0 * centred.abs());
    0.225 * (parabola * parabola.abs() - parabola) + parabola
}

/// Cosine of an angle in turns.
#[inline]
pub(crate) fn cos_turns(turns: f32) -> f32 {
    sin_turns(turns + 0.25)
}

/// Angle of `(x, y)` in turns, in `[-0.5, 0.5]`; 0 at the origin.
#[inline]
pub(crate) fn angle_turns(x: f32, y: f32) -> f32 {
    let (ax, ay) = (x.abs(), y.abs());
    let ratio = ax.min(ay) / ax.max(ay).max(1e-20);
    let octant = ratio * (0.155_2 - 0.030_2 * ratio * ratio);
    let quadrant = if ay > ax { 0.25 - octant } else { octant };
    let half = if x < 0.0 { 0.5 - quadrant } else { quadrant };
    if y < 0.0 { -half } else { half }
}

/// Two to the power `x`, for `|x| < 100`.
#[inline]
pub(crate) fn exp2(x: f32) -> f32 {
    let whole = floor(x);
    let part = x - whole as f32;
    let mantissa = 1.0 + part * (0.695_98 + part * (0.224_94 + part * 0.079_08));
    mantissa * f32::from_bits(((whole + 127) as u32) << 23)
}

/// Binary logarithm of a positive normal number.
#[inline]
pub(crate) fn log2(x: f32) -> f32 {
    let bits = x.to_bits();
    let exponent = (bits >> 23) as i32 - 127;
    let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000) - 1.0;
    let fractional = mantissa * (1.424_55 + mantissa * (-0.585_9 + mantissa * 0.161_35));
    exponent as f32 + fractional
}

/// `x` to the power `p`, for `x` in `[0, 1e6]`.
#[inline]
pub(crate) fn pow(x: f32, p: f32) -> f32 {
    if x <= 1e-12 { 0.0 } else { exp2(p * log2(x)) }
}

/// Hermite step from 0 at `low` to 1 at `high`.
#[inline]
pub(crate) fn smoothstep(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Straight line from `a` at 0 to `b` at 1.
#[inline]
pub(crate) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_close_to_the_exact_ones() {
        for step in -400..400_i16 {
            let x = f32::from(step) * 0.0173;
            let radians = x * std::f32::consts::TAU;
            assert!((sin_turns(x) - radians.sin()).abs() < 2e-3);
            assert!((cos_turns(x) - radians.cos()).abs() < 2e-3);
            assert!((exp2(x) / x.exp2() - 1.0).abs() < 2e-3);
            assert_eq!(floor(x), x.floor() as i32);
            let angle = angle_turns(radians.cos(), radians.sin());
            let error = angle - x;
            assert!((error - error.round()).abs() < 3e-3, "{x}: {angle}");
            if x > 0.0 {
                assert!((log2(x) - x.log2()).abs() < 6e-3, "{x}");
            }
        }
    }
}
