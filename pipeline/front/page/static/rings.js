// The rings, and where they are drawn: side by side where there is room, one below the other on a phone.

export const STAGES = {
  front: { role: "HTTP, streams", wide: [10, 85, 140, 170], tall: [110, 6, 140, 62] },
  preprocess: { role: "tokenize, schedule", wide: [290, 85, 140, 170], tall: [110, 168, 140, 62] },
  inference: { role: "runs the model", wide: [570, 85, 140, 170], tall: [110, 330, 140, 62] },
  sampling: { role: "choose, detokenize", wide: [850, 85, 140, 170], tall: [110, 492, 140, 62] },
};

export const SIZE = { wide: [1000, 392], tall: [360, 562] };

// path: from the producer to the consumer; at: centre of the ring; label: x, y, anchor of its two lines
export const RINGS = {
  requests: {
    from: "front", to: "preprocess", carries: "prompts, cancellations",
    wide: { path: "M150 120H288", at: [219, 120], label: [219, 160, "middle"] },
    tall: { path: "M145 68V166", at: [145, 117], label: [118, 113, "end"] },
  },
  replies: {
    from: "preprocess", to: "front", carries: "accepted, refused, started",
    wide: { path: "M290 206H152", at: [221, 206], label: [221, 246, "middle"] },
    tall: { path: "M215 168V70", at: [215, 119], label: [242, 115, "start"] },
  },
  steps: {
    from: "preprocess", to: "inference", carries: "step descriptors",
    wide: { path: "M430 120H568", at: [499, 120], label: [499, 160, "middle"] },
    tall: { path: "M180 230V328", at: [180, 279], label: [207, 275, "start"] },
  },
  logits: {
    from: "inference", to: "sampling", carries: "logits, or token ids",
    wide: { path: "M710 120H848", at: [779, 120], label: [779, 160, "middle"] },
    tall: { path: "M132 392V490", at: [132, 441], label: [158, 424, "start"] },
  },
  tokens: {
    from: "sampling", to: "inference", carries: "sampled token ids, unless all rows are greedy",
    wide: { path: "M850 206H712", at: [781, 206], label: [781, 246, "middle"] },
    tall: { path: "M228 492V394", at: [228, 443], label: [202, 462, "end"] },
  },
  rows: {
    from: "preprocess", to: "sampling", carries: "requests admitted to rows",
    wide: { path: "M360 85V50Q360 36 374 36H906Q920 36 920 50V83", at: [640, 36], label: [674, 14, "start"] },
    tall: { path: "M110 205H94Q80 205 80 219V510Q80 524 94 524H108", at: [80, 345], label: [80, 380, "middle"] },
  },
  results: {
    from: "sampling", to: "preprocess", carries: "tokens, finished rows",
    wide: { path: "M905 255V288Q905 302 891 302H389Q375 302 375 288V257", at: [640, 302], label: [674, 280, "start"] },
    tall: { path: "M110 540H42Q28 540 28 526V203Q28 189 42 189H108", at: [28, 345], label: [28, 380, "middle"] },
  },
  deltas: {
    from: "sampling", to: "front", carries: "text, finish reasons",
    wide: { path: "M935 255V346Q935 360 921 360H94Q80 360 80 346V257", at: [500, 360], label: [534, 338, "start"] },
    tall: { path: "M250 523H298Q312 523 312 509V51Q312 37 298 37H252", at: [312, 279], label: [312, 314, "middle"] },
  },
};
