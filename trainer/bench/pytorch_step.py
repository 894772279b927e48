"""The same training step as the trainer's, in eager PyTorch, to compare speed and results with.

    python pytorch_step.py --serve --arch resnet18 --batch 64 --view 96
    python pytorch_step.py --check tests/golden/*.safetensors

With --serve, each line `run N` on standard input is answered by a line of JSON with the timing of
N steps; a first line says that everything is warm. The protocol is that of `densecl-trainer bench
--serve`. With --check, recorded steps are replayed in float64 and recorded views in float32, so
that what is timed is known to be the same computation.

torchvision's ResNet and blocks, and PyTorch's fast paths where there are any: one fused or
multi-tensor call for SGD and for the momentum encoder, gradients set to none, uploads from pinned
memory, autocast. No torch.compile and no CUDA graphs: this is eager PyTorch.

The method is that of arXiv 2011.09157 (DenseCL) and 2003.04297 (MoCo-v2).
"""

import argparse
import functools
import json
import math
import statistics
import sys
import time

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchvision.models import resnet as tv_resnet
from torchvision.transforms import v2

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCHES = 2  # different batches that the steps take in turn
BLOCKS = {
    "resnet18": (tv_resnet.BasicBlock, (2, 2, 2, 2)),
    "resnet34": (tv_resnet.BasicBlock, (3, 4, 6, 3)),
    "resnet50": (tv_resnet.Bottleneck, (3, 4, 6, 3)),
    "resnet101": (tv_resnet.Bottleneck, (3, 4, 23, 3)),
}


class SplitBatchNorm(nn.BatchNorm2d):
    """BatchNorm over groups of consecutive images, as several devices would see them.

    The running statistics move towards the mean over the groups.
    """

    def __init__(self, channels, splits):
        super().__init__(channels)
        self.splits = splits

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        stats = self.running_mean.new_zeros(2, self.splits, self.num_features)
        # With a momentum of 1, batch_norm leaves a group's own statistics in its row.
        groups = [
            F.batch_norm(group, stats[0, i], stats[1, i], self.weight, self.bias, True, 1.0, self.eps)
            for i, group in enumerate(x.chunk(self.splits))
        ]
        mean, var = stats.mean(1)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var, self.momentum)
        return torch.cat(groups)


class Backbone(tv_resnet.ResNet):
    """torchvision's ResNet without its classifier, `stem_width` channels wide at the stem."""

    def __init__(self, arch, stem_width, norm_layer):
        nn.Module.__init__(self)
        block, depths = BLOCKS[arch]
        self._norm_layer, self.inplanes, self.dilation, self.groups, self.base_width = norm_layer, stem_width, 1, 1, 64
        self.conv1 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for i, depth in enumerate(depths):
            layer = self._make_layer(block, stem_width * 2**i, depth, stride=1 if i == 0 else 2)
            setattr(self, f"layer{i + 1}", layer)
        self.channels = self.inplanes
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # [N, C, S, S]


class Encoder(nn.Module):
    def __init__(self, arch, stem_width, dim, dense, bn_splits):
        super().__init__()
        norm = nn.BatchNorm2d if bn_splits == 1 else functools.partial(SplitBatchNorm, splits=bn_splits)
        self.backbone = Backbone(arch, stem_width, norm)
        c = self.backbone.channels
        self.global_head = nn.Sequential(nn.Linear(c, c), nn.ReLU(inplace=True), nn.Linear(c, dim))
        self.dense_head = nn.Sequential(nn.Conv2d(c, c, 1), nn.ReLU(inplace=True), nn.Conv2d(c, dim, 1)) if dense else None

    def forward(self, images):
        """[N, 3, H, W] -> unit global [N, D], unit cells [N, D, L], unit backbone cells [N, C, L] and unit pooled
        cells [N, D]; the last three are None without a dense head."""
        feature = self.backbone(images)  # [N, C, S, S]
        whole = F.normalize(self.global_head(feature.mean((2, 3))), dim=1)
        if self.dense_head is None:
            return whole, None, None, None
        projected = self.dense_head(feature)  # [N, D, S, S]
        with torch.no_grad():
            matched_by = F.normalize(feature.flatten(2), dim=1)
            pooled = F.normalize(projected.mean((2, 3)), dim=1)
        return whole, F.normalize(projected.flatten(2), dim=1), matched_by, pooled


def info_nce(query, positive, negatives, temperature):
    """query and positive [M, D], negatives [K, D] -> loss, and the share in percent that finds its positive."""
    logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ negatives.T], dim=1)  # [M, 1 + K]
    logits /= temperature
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    top1 = (logits.detach().argmax(1) == 0).float().mean() * 100
    return F.cross_entropy(logits, target), top1


class Queue:
    def __init__(self, length, dim, **where):
        self.vectors, self.pointer = F.normalize(torch.randn(length, dim, **where), dim=1), 0

    def push(self, keys):
        self.vectors[self.pointer : self.pointer + len(keys)] = keys
        self.pointer = (self.pointer + len(keys)) % len(self.vectors)


class DenseCl:
    """Query and key encoder, queues, and one step of training."""

    def __init__(self, o, dtype=torch.float32):
        dense = o.method == "densecl"
        make = lambda: Encoder(o.arch, o.stem_width, o.dim, dense, o.bn_splits).to(o.device, dtype)
        self.o, self.query, self.key = o, make(), make().requires_grad_(False)
        if o.channels_last:
            self.query.to(memory_format=torch.channels_last)
            self.key.to(memory_format=torch.channels_last)
        self.key.load_state_dict(self.query.state_dict())
        self.queues = [Queue(o.queue, o.dim, device=o.device, dtype=dtype) for _ in range(1 + dense)]
        how = {"fused": {"fused": True}, "foreach": {"foreach": True}}[o.optimizer]
        self.sgd = torch.optim.SGD(self.query.parameters(), o.lr, o.sgd_momentum, weight_decay=o.weight_decay, **how)
        self.parameters = [list(encoder.parameters()) for encoder in (self.key, self.query)]

    @torch.no_grad()
    def embed_keys(self, view, shuffle):
        torch._foreach_lerp_(*self.parameters, 1 - self.o.momentum)
        if shuffle is None:
            return self.key(view)
        back = shuffle.argsort()
        return [None if x is None else x[back] for x in self.key(view[shuffle])]

    def forward(self, view_q, view_k, shuffle=None):
        o = self.o
        if o.channels_last:
            view_q, view_k = (view.contiguous(memory_format=torch.channels_last) for view in (view_q, view_k))
        with torch.autocast(o.device.type, torch.bfloat16, enabled=o.precision == "bf16"):
            q, cells_q, features_q, _ = self.query(view_q)
            k, cells_k, features_k, pooled_k = self.embed_keys(view_k, shuffle)
            loss_global, global_top1 = info_nce(q, k, self.queues[0].vectors, o.temperature)
            out = {"loss": loss_global, "loss_global": loss_global, "global_top1": global_top1}
            if cells_q is not None:
                match = (features_q.transpose(1, 2) @ features_k).argmax(2)  # [N, L]
                positive = cells_k.gather(2, match.unsqueeze(1).expand_as(cells_q))  # [N, D, L]
                rows = lambda x: x.transpose(1, 2).flatten(0, 1)  # [N * L, D]
                loss_dense, dense_top1 = info_nce(rows(cells_q), rows(positive), self.queues[1].vectors, o.temperature)
                loss = (1 - o.loss_lambda) * loss_global + o.loss_lambda * loss_dense
                out |= {"loss": loss, "loss_dense": loss_dense, "match": match, "dense_top1": dense_top1}
        out["embedding_std"] = q.detach().float().std(0, correction=0).mean()
        return out, (k, pooled_k)

    def step(self, view_q, view_k, shuffle=None):
        out, keys = self.forward(view_q, view_k, shuffle)
        out["loss"].backward()
        self.sgd.step()
        self.sgd.zero_grad()  # sets gradients to none
        for queue, key in zip(self.queues, keys):
            queue.push(key)
        return out


class BatchedViews:
    """MoCo-v2's augmentation of a whole batch at once: uint8 [N, S, S, 3] -> normalised [N, 3, V, V].

    Crop, resize, flip and blur are small matrices along each axis.
    """

    def __init__(self, o):
        self.view, self.device = o.view, o.device
        self.generator = torch.Generator().manual_seed(0)
        self.mean = torch.tensor(IMAGENET_MEAN, device=o.device).view(1, 3, 1, 1)
        self.inverse_std = 1 / torch.tensor(IMAGENET_STD, device=o.device).view(1, 3, 1, 1)

    def uniform(self, low, high, *size):
        return torch.empty(*size).uniform_(low, high, generator=self.generator)

    def draw_windows(self, n, side):
        """Starts and lengths along y and x, [4, N]: the first of ten tries that fits, or all of it."""
        area = side * side * self.uniform(0.2, 1, n, 10)
        ratio = self.uniform(math.log(3 / 4), math.log(4 / 3), n, 10).exp()
        sizes = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round()  # [2, N, 10]
        fits = (sizes <= side).all(0)
        pick = fits.float().argmax(1)  # [N]
        size = sizes.gather(2, pick.expand(2, n).unsqueeze(2)).squeeze(2)  # [2, N]
        size = torch.where(fits.any(1), size, torch.full_like(size, side))
        start = (self.uniform(0, 1, 2, n) * (side - size + 1)).floor()
        return torch.cat([start, size])

    def resize_rows(self, start, length, side, flip=None):
        """[N, V, side]: antialiased bilinear weights."""
        at = torch.arange(self.view, device=self.device) + 0.5
        if flip is not None:
            at = torch.where(flip.view(-1, 1), self.view - at, at)  # [N, V]
        scale = (length / self.view).view(-1, 1)
        centre = (start.view(-1, 1) + at * scale).unsqueeze(2)
        pixel = (torch.arange(side, device=self.device) + 0.5).expand(len(start), 1, side)
        weight = (1 - (pixel - centre).abs_().div_(scale.clamp(min=1).unsqueeze(2))).clamp_(min=0)
        start, end = start.view(-1, 1, 1), (start + length).view(-1, 1, 1)
        weight *= (pixel > start) & (pixel < end)
        return weight / weight.sum(2, keepdim=True)

    def blur_rows(self, sigma):
        """[N, V, V]: Gaussian weights with reflected borders."""
        at = torch.arange(self.view, device=self.device, dtype=torch.float32)
        last = self.view - 1
        sigma = sigma.clamp(min=0.02).view(-1, 1, 1)
        # What is far below float32 is 0: denormal numbers would make the products slow.
        gauss = lambda distance: F.threshold_(distance.div(sigma).square_().mul_(-0.5).exp_(), 1e-12, 0)
        near, far = at.view(-1, 1) - at, at.view(-1, 1) + at
        rows = gauss(near) + gauss(far) * (at > 0) + gauss(far - 2 * last) * (at < last)
        return rows / rows.sum(2, keepdim=True)

    @staticmethod
    def grey(x):
        r, g, b = x.unbind(1)
        return (r * 0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114).unsqueeze(1)

    @staticmethod
    def turn_hue(x, shift):
        r, g, b = x.unbind(1)
        low, value = torch.aminmax(x, dim=1)
        chroma = value - low
        inverse = torch.where(chroma > 0, 1 / chroma, 0)
        hue = torch.where(value == r, (g - b) * inverse,
                          torch.where(value == g, (b - r).mul_(inverse).add_(2), (r - g).mul_(inverse).add_(4)))
        hue += 6 * shift.view(-1, 1, 1)
        offsets = torch.tensor([5.0, 3.0, 1.0], device=x.device).view(1, 3, 1, 1)
        k = (hue.unsqueeze(1) + offsets).remainder_(6)  # [N, 3, V, V]
        return value.unsqueeze(1) - torch.minimum(k, 4 - k).clamp_(0, 1).mul_(chroma.unsqueeze(1))

    @torch.no_grad()
    def __call__(self, canvases):
        n, side = canvases.shape[:2]
        # All random numbers of the batch travel to the device at once.
        windows = self.draw_windows(n, side)
        jittered = self.uniform(0, 1, n) < 0.8
        strengths = self.uniform(-1, 1, 4, n) * torch.tensor([0.4, 0.4, 0.4, 0.1]).view(4, 1) * jittered
        grey = (self.uniform(0, 1, n) < 0.2).float()
        sigma = self.uniform(0.1, 2, n) * (self.uniform(0, 1, n) < 0.5)
        flip = (self.uniform(0, 1, n) < 0.5).float()
        drawn = torch.cat([windows, strengths, grey[None], sigma[None], flip[None]]).to(self.device, non_blocking=True)
        top, left, height, width, brightness, contrast, saturation, hue, grey, sigma, flip = drawn
        column = lambda values: values.view(-1, 1, 1, 1)

        x = canvases.permute(0, 3, 1, 2).float().div_(255)  # [N, 3, S, S]
        vertical = self.resize_rows(top, height, side).unsqueeze(1)
        horizontal = self.resize_rows(left, width, side, flip > 0).unsqueeze(1)
        x = vertical @ x @ horizontal.transpose(2, 3)  # [N, 3, V, V]
        for operation in torch.randperm(4, generator=self.generator).tolist():
            if operation == 0:
                x = (x * column(1 + brightness)).clamp_(0, 1)
            elif operation == 1:
                x = torch.lerp(self.grey(x).mean((1, 2, 3), keepdim=True), x, column(1 + contrast)).clamp_(0, 1)
            elif operation == 2:
                x = torch.lerp(self.grey(x), x, column(1 + saturation)).clamp_(0, 1)
            else:
                x = self.turn_hue(x, hue)
        x = torch.lerp(x, self.grey(x), column(grey))
        blur = self.blur_rows(sigma).unsqueeze(1)
        x = blur @ x @ blur.transpose(2, 3)
        return x.sub_(self.mean).mul_(self.inverse_std)


class TorchvisionViews:
    """The same augmentation image by image, as most data loaders do it."""

    def __init__(self, o):
        self.device = o.device
        self.transform = v2.Compose([
            v2.RandomResizedCrop(o.view, scale=(0.2, 1), antialias=True),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.RandomApply([v2.GaussianBlur(2 * int(0.05 * o.view) + 1, (0.1, 2.0))], p=0.5),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ])

    @torch.no_grad()
    def __call__(self, canvases):
        return torch.stack([self.transform(image) for image in canvases.permute(0, 3, 1, 2)])


class Bench:
    def __init__(self, o):
        self.o, cuda = o, o.device.type == "cuda"
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        self.model = DenseCl(o)
        self.views = {"batched": BatchedViews, "torchvision": TorchvisionViews}[o.augment](o)
        self.canvases = [self.pictures(i) for i in range(BATCHES)]
        if cuda:
            self.canvases = [canvases.pin_memory() for canvases in self.canvases]
        self.synchronize = torch.cuda.synchronize if cuda else lambda: None
        self.steps = 0

    def pictures(self, seed):
        """uint8 [N, S, S, 3]: coarse noise; what is on the pictures does not change how long a step takes."""
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(self.o.batch, 3, 8, 8, generator=generator)
        side = (self.o.canvas, self.o.canvas)
        fine = F.interpolate(coarse, side, mode="bilinear").mul_(255).to(torch.uint8)
        return fine.permute(0, 2, 3, 1).contiguous()

    def step(self):
        canvases = self.canvases[self.steps % BATCHES].to(self.o.device, non_blocking=True)
        view_q, view_k = self.views(canvases), self.views(canvases)
        shuffle = torch.randperm(self.o.batch).to(self.o.device) if self.o.bn_splits > 1 else None
        self.steps += 1
        return self.model.step(view_q, view_k, shuffle)["loss"]

    def block(self, count):
        seconds, loss = [], torch.tensor(math.nan)
        self.synchronize()
        cpu_started = time.process_time()
        for _ in range(count):
            started = time.perf_counter()
            loss = self.step()
            self.synchronize()
            seconds.append(time.perf_counter() - started)
        cpu_seconds = time.process_time() - cpu_started
        mean = statistics.fmean(seconds)
        return {"part": "step", "steps": count, "batch": self.o.batch, "median_seconds": statistics.median(seconds),
                "mean_seconds": mean, "mean_cpu_seconds": cpu_seconds / count,
                "pairs_per_second": self.o.batch / mean, "loss": loss.item(),
                "peak_resident_bytes": peak_resident_bytes(), "peak_device_bytes": self.peak_device_bytes()}

    def peak_device_bytes(self):
        return torch.cuda.max_memory_allocated() if self.o.device.type == "cuda" else None

    def serve(self):
        if self.o.warmup:
            self.block(self.o.warmup)
        o = self.o
        say({"program": "pytorch", "device": str(o.device), "threads": torch.get_num_threads(), "batch": o.batch,
             "view_px": o.view, "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__}})
        for line in sys.stdin:
            verb, count = line.split()
            if verb != "run":
                sys.exit(f"`{line.strip()}`: expected `run N`")
            say(self.block(int(count)))


def say(value):
    print(json.dumps(value), flush=True)


def peak_resident_bytes():
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def check(path, tolerance=1e-9):
    """Replays recorded steps; trainer/src/golden.rs says what such a file holds."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        golden = {key: file.get_tensor(key) for key in file.keys()}
        meta = file.metadata()
    o = argparse.Namespace(device=torch.device("cpu"), channels_last=False, precision="float32", optimizer="fused",
                           sgd_momentum=0.9, method=meta["method"], arch=meta["arch"])
    for key in ("stem_width", "dim", "queue", "bn_splits"):
        setattr(o, key, int(meta[key]))
    for key in ("temperature", "momentum", "loss_lambda", "weight_decay", "lr"):
        setattr(o, key, float(meta[key]))
    model = DenseCl(o, torch.float64)
    names = ("global", "dense")[: len(model.queues)]
    encoders = {"query": model.query, "key": model.key}
    kept = lambda encoder: {k: v for k, v in encoder.state_dict().items() if not k.endswith("num_batches_tracked")}
    with torch.no_grad():
        for name, encoder in encoders.items():
            for key, tensor in kept(encoder).items():
                tensor.copy_(golden[f"init/{name}/{key}"])
        for name, queue in zip(names, model.queues):
            queue.vectors.copy_(golden[f"init/queue/{name}"])
    found = {}
    for i in range(int(meta["steps"])):
        for group in model.sgd.param_groups:
            group["lr"] = golden[f"step{i}/lr"].item()
        out = model.step(golden[f"step{i}/view_q"], golden[f"step{i}/view_k"])
        found |= {f"step{i}/{key}": value.detach() for key, value in out.items()}
    for name, encoder in encoders.items():
        found |= {f"final/{name}/{key}": tensor for key, tensor in kept(encoder).items()}
    found |= {f"final/queue/{name}": queue.vectors for name, queue in zip(names, model.queues)}
    found["final/queue_pointer"] = torch.tensor(model.queues[0].pointer)

    given = ("view_q", "view_k", "lr")
    wanted = [key for key in golden if not key.startswith("init/") and key.rsplit("/", 1)[1] not in given]
    distance = lambda a, b: ((a.double() - b.double()).norm() / a.double().norm().clamp(min=1e-12)).item()
    errors = {key: distance(golden[key], found[key]) for key in wanted}
    worst = max(errors, key=errors.get)
    print(f"{path}: {len(errors)} tensors, worst {worst} {errors[worst]:.3e}")
    return errors[worst] <= tolerance


def check_views(path, tolerance=1e-5):
    """Compares the operations of BatchedViews with torchvision's; tests/golden/make_augmentation.py wrote them."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        golden = {key: file.get_tensor(key) for key in file.keys()}
    canvases, view = golden["images"], golden["colour/input"]
    side = canvases.size(1)
    views = BatchedViews(argparse.Namespace(view=view.size(3), device=torch.device("cpu")))
    parameter = lambda name: golden[f"{name}/parameter"].view(-1, 1, 1, 1)
    grey, blur = views.grey(view), views.blur_rows(golden["blur/parameter"]).unsqueeze(1)
    found = {
        "contrast": torch.lerp(grey.mean((1, 2, 3), keepdim=True), view, parameter("contrast")).clamp(0, 1),
        "saturation": torch.lerp(grey, view, parameter("saturation")).clamp(0, 1),
        "hue": views.turn_hue(view, parameter("hue")),
        "blur": blur @ view @ blur.transpose(2, 3),
    }
    for name in ("crop/smaller", "crop/larger", "crop/mixed"):
        left, top, width, height = golden[f"{name}/windows"].T
        rows = [views.resize_rows(*along, side).unsqueeze(1) for along in ((top, height), (left, width))]
        found[name] = rows[0] @ (canvases.permute(0, 3, 1, 2) / 255) @ rows[1].transpose(2, 3)
    errors = {name: (value - golden[f"{name}/result"]).abs().max().item() for name, value in found.items()}
    worst = max(errors, key=errors.get)
    print(f"{path}: {len(errors)} operations, worst {worst} {errors[worst]:.3e}")
    return errors[worst] <= tolerance


def options(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--serve", action="store_true", help="time steps on demand")
    parser.add_argument("--check", nargs="+", metavar="GOLDEN", help="replay recorded steps or views instead")
    parser.add_argument("--method", choices=("densecl", "moco-v2"), default="densecl")
    parser.add_argument("--arch", choices=BLOCKS, default="resnet18")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--augment", choices=("batched", "torchvision"), default="batched")
    parser.add_argument("--optimizer", choices=("fused", "foreach"), default="fused")
    parser.add_argument("--threads", type=int, help="CPU threads [default: PyTorch's]")
    for name, default in (("stem-width", 64), ("dim", 128), ("batch", 64), ("view", 96), ("canvas", 128),
                          ("queue", 4096), ("bn-splits", 2), ("warmup", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, default in (("lr", 0.03), ("sgd-momentum", 0.9), ("weight-decay", 1e-4), ("momentum", 0.999),
                          ("temperature", 0.2), ("loss-lambda", 0.5)):
        parser.add_argument(f"--{name}", type=float, default=default)
    return parser.parse_args(argv)


def main():
    o = options()
    if o.threads:
        torch.set_num_threads(o.threads)
    if o.check:
        checks = [(check_views if "augmentation" in path else check)(path) for path in o.check]
        sys.exit(not all(checks))
    bench = Bench(o)
    if o.serve:
        bench.serve()
    else:
        if o.warmup:
            bench.block(o.warmup)
        say(bench.block(10))


if __name__ == "__main__":
    main()
