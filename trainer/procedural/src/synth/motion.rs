//! Paths of objects and of the camera through a sequence.
//!
//! Every path is a quadratic in time, so motion is smooth; time runs from 0 at the first frame to 1 at
//! the last, and more frames show the same motion more finely. Objects go in pairs that meet, so that
//! one hides the other for a while. Lengths are image units (the shorter side of a frame).

use crate::random::Stream;
use crate::similarity::Similarity;
use crate::stage::View;

/// Way of an object from the first frame to the last.
const LENGTHS: (f32, f32) = (0.2, 0.5);
/// Largest bend of an object's path.
const BEND: f32 = 0.25;
/// Tangent of half the turn of an object, at most; 0.2 is about 23 degrees.
const SPIN: f32 = 0.2;
/// Growth or shrinkage of an object, at most.
const GROWTH: f32 = 0.25;
/// Way of the camera along each axis, at most, of each of the two terms.
const PAN: f32 = 0.08;
/// Tangent of half the turn of the camera, likewise: twice 4.6 degrees.
const ROLL: f32 = 0.04;
/// Zoom of the camera, likewise.
const ZOOM: f32 = 0.08;

/// Motion of a scene.
#[derive(Debug, Clone)]
pub(super) struct Motion {
    camera: CameraPath,
    objects: Vec<ObjectPath>,
}

#[derive(Debug, Clone)]
struct CameraPath {
    /// Width and height of the view.
    extent: [f64; 2],
    /// The middle of the first view, in the world.
    middle: [f64; 2],
    pan: [[f64; 2]; 2],
    roll: [f64; 2],
    zoom: [f64; 2],
}

#[derive(Debug, Clone)]
struct ObjectPath {
    /// The point of the object that follows the path, in the object's frame.
    pivot: [f64; 2],
    /// When and where in the world it meets another object.
    meeting: f64,
    place: [f64; 2],
    velocity: [f64; 2],
    bend: [f64; 2],
    spin: f64,
    growth: f64,
}

impl Motion {
    /// Paths for the objects with these pivots, in a world whose middle is seen first.
    pub(super) fn sample(pivots: &[[f64; 2]], extent: [f64; 2], world: [f64; 2], stream: &mut Stream) -> Self {
        let mut within = |limit: f32| f64::from(stream.range(-limit, limit));
        let camera = CameraPath {
            extent,
            middle: world.map(|length| 0.5 * length),
            pan: [[within(PAN), within(PAN)], [within(PAN), within(PAN)]],
            roll: [within(ROLL), within(ROLL)],
            zoom: [within(ZOOM), within(ZOOM)],
        };
        let mut objects: Vec<ObjectPath> = Vec::with_capacity(pivots.len());
        for (index, &pivot) in pivots.iter().enumerate() {
            let path = match objects.last() {
                Some(partner) if index % 2 == 1 => ObjectPath::meeting(partner, pivot, stream),
                _ => ObjectPath::sample(&camera, pivot, stream),
            };
            objects.push(path);
        }
        Self { camera, objects }
    }

    /// Positions at `time` in `[0, 1]`.
    pub(super) fn view(&self, time: f64) -> View {
        let objects: Vec<Similarity> = self.objects.iter().map(|path| path.world_from_object(time)).collect();
        View::new(&self.camera.view_from_world(time), &objects)
    }
}

impl CameraPath {
    /// At time 0 it shows the middle of the world, upright and as large as it is.
    fn view_from_world(&self, time: f64) -> Similarity {
        let at = |[slope, bend]: [f64; 2]| slope * time + bend * time * time;
        let away = std::array::from_fn(|axis| -(self.middle[axis] + at([self.pan[0][axis], self.pan[1][axis]])));
        Similarity::translation(away)
            .then(&Similarity::turned(at(self.roll), 1.0 + at(self.zoom)))
            .then(&Similarity::translation(self.extent.map(|length| 0.5 * length)))
    }
}

impl ObjectPath {
    fn sample(camera: &CameraPath, pivot: [f64; 2], stream: &mut Stream) -> Self {
        let place = std::array::from_fn(|axis| {
            camera.middle[axis] + f64::from(stream.range(-0.32, 0.32)) * camera.extent[axis]
        });
        let length = f64::from(stream.range(LENGTHS.0, LENGTHS.1));
        let velocity = Similarity::turned(half_tangent(stream), length).apply_to_direction([1.0, 0.0]);
        Self::around(place, velocity, pivot, stream)
    }

    /// A path that crosses `partner`'s where and when that one is at its meeting.
    fn meeting(partner: &Self, pivot: [f64; 2], stream: &mut Stream) -> Self {
        let place = partner.place.map(|coordinate| coordinate + f64::from(stream.range(-0.06, 0.06)));
        // The opposite direction, turned by up to a quarter.
        let turn = Similarity::turned(f64::from(stream.range(-0.414, 0.414)), f64::from(stream.range(0.6, 1.2)));
        let velocity = turn.apply_to_direction(partner.velocity).map(|speed| -speed);
        Self { meeting: partner.meeting, ..Self::around(place, velocity, pivot, stream) }
    }

    fn around(place: [f64; 2], velocity: [f64; 2], pivot: [f64; 2], stream: &mut Stream) -> Self {
        let mut within = |low: f32, high: f32| f64::from(stream.range(low, high));
        Self {
            pivot,
            meeting: within(0.35, 0.75),
            place,
            velocity,
            bend: [within(-BEND, BEND), within(-BEND, BEND)],
            spin: within(-SPIN, SPIN),
            growth: within(-GROWTH, GROWTH),
        }
    }

    fn world_from_object(&self, time: f64) -> Similarity {
        let since = time - self.meeting;
        let place =
            std::array::from_fn(|axis| self.place[axis] + since * (self.velocity[axis] + since * self.bend[axis]));
        Similarity::translation(self.pivot.map(|coordinate| -coordinate))
            .then(&Similarity::turned(self.spin * since, 1.0 + self.growth * since))
            .then(&Similarity::translation(place))
    }
}

/// Tangent of half an angle: any direction, those near the negative x axis less often.
fn half_tangent(stream: &mut Stream) -> f64 {
    let tangent = f64::from(stream.range(-1.0, 1.0));
    if stream.chance(0.5) { tangent } else { 1.0 / tangent.abs().max(1e-3) * tangent.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    const EXTENT: [f64; 2] = [4.0 / 3.0, 1.0];
    const WORLD: [f64; 2] = [2.0, 1.5];

    #[test]
    fn the_first_view_is_the_middle_of_the_world() {
        let motion = Motion::sample(&[], EXTENT, WORLD, &mut Stream::new(Purpose::Motion, 1, 1));
        let [x, y] = motion.camera.view_from_world(0.0).apply([1.0, 0.75]);
        assert!((x - 2.0 / 3.0).abs() < 1e-12 && (y - 0.5).abs() < 1e-12);
        assert!((motion.camera.view_from_world(0.0).factor() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn partners_meet() {
        for index in 0..50 {
            let mut stream = Stream::new(Purpose::Motion, 3, index);
            let pivots = [[0.3, 0.2], [1.4, 0.9]];
            let motion = Motion::sample(&pivots, EXTENT, WORLD, &mut stream);
            let between = |time: f64| {
                let places: Vec<[f64; 2]> = motion
                    .objects
                    .iter()
                    .zip(pivots)
                    .map(|(path, pivot)| path.world_from_object(time).apply(pivot))
                    .collect();
                (places[0][0] - places[1][0]).hypot(places[0][1] - places[1][1])
            };
            assert!(between(motion.objects[0].meeting) < 0.09);
            assert!(between(0.0) > 0.09 || between(1.0) > 0.09);
        }
    }
}
