// What of ATen is not part of the typed surface, in one list with reasons. Everything else is. What is hidden here can
// still be called by torch.callOperator('aten::name.overload', ...).

/** @type {readonly { pattern: RegExp, reason: string }[]} */
export const hiddenNames = [
  { pattern: /^_/, reason: 'internal: names with a leading underscore may change in any release' },
  { pattern: /(^|_)backward(_|$)/, reason: 'the gradient of another operator; autograd calls it' },
  {
    pattern: /_double_backward|_backward_backward|_jvp$|_forward$/,
    reason: 'a piece of another operator that autograd calls',
  },
  {
    pattern:
      /_copy$(?<!^index_copy)|_copy_$(?<!^index_copy_)|_scatter$(?<!^(masked|select|slice|diagonal|as_strided)_scatter)/,
    reason: 'the copying form of a view, for functionalisation',
  },
  {
    pattern: /^sym_|^is_same_size$|^size$|^stride$|^dim$|^numel$|^item$|^storage_offset$|^element_size$/,
    reason: 'a property of Tensor, written by hand',
  },
  {
    pattern:
      /^(cudnn|miopen|mkldnn|mps|mkl|fbgemm|quantized|q_|xnnpack|thnn|slow_conv|conv_depthwise3d|cslt|mtia|hip|onednn)/,
    reason: 'one backend of another operator',
  },
  {
    pattern:
      /^(fake_quantize|fused_moving_avg|quantize_|dequantize|choose_qparams|int_repr|qscheme|linear_quantize)|^rrelu_with_noise_functional$/,
    reason: 'quantisation, which has no types here',
  },
  {
    pattern:
      /^(batch_norm_(stats|elemt|gather|update)|max_pool[23]d_with_indices_|embedding_renorm_|embedding_dense|nll_loss_nd|nll_loss2d|nll_loss_forward|multilabel_margin_loss_forward|im2col|col2im|upsample_|reflection_pad|replication_pad|glu_jvp|thnn)/,
    reason: 'a kernel behind a public operator: nn.functional has interpolate, pad, unfold and fold',
  },
  {
    pattern:
      /^(lift|lift_fresh|alias|resolve_\w+|set_data|data|output_nr|retains_grad|retain_grad|requires_grad_|is_leaf|to|cpu|record_stream|rename_?|refine_names|align_\w+|grad)$/,
    reason: 'written by hand on Tensor, or bookkeeping of autograd and of names',
  },
  { pattern: /^(result_type|promote_types|can_cast)$/, reason: 'returns a dtype; promoteTypes is written by hand' },
  {
    pattern: /^(arange|full|empty_strided|tensor|scalar_tensor|range|from_file|sparse_resize|sparse_resize_and_clear)$/,
    reason: 'written by hand because of how it reads plain numbers, or deprecated',
  },
  {
    pattern: /^(resize_as_sparse_|sparse_resize_|sparse_resize_and_clear_|set_|resize_output_)$/,
    reason: 'changes the memory under a tensor; a mistake is not caught by libtorch',
  },
  {
    pattern: /^(to_mkldnn|to_padded_tensor|hspmm|sspaddmm|copy_sparse_to_sparse_)$/,
    reason: 'for one backend, or without a kernel on most',
  },
  { pattern: /^[A-Z]/, reason: "TorchScript's own" },
  {
    pattern:
      /^(segment_reduce|fbgemm|nested_to|nested_|chunk_cat|amp_|foobar|vital|is_vulkan|set_vital|read_vitals|wrapped_|qlinear)/,
    reason: 'experimental, or for one product',
  },
]

/** @type {readonly { name: string, reason: string }[]} Names that libtorch crashes on or asserts internally for wrong arguments. */
export const unsafeNames = [
  {
    name: 'rrelu_with_noise',
    reason: 'what rrelu calls; writes into its noise, and fails an internal assertion where that cannot be written',
  },
  { name: 'rrelu_with_noise_', reason: 'as rrelu_with_noise' },
  { name: 'linalg__powsum', reason: 'internal: linalg_vector_norm without its root' },
  {
    name: 'copy_sparse_to_sparse',
    reason: 'the functional form of copy_sparse_to_sparse_; an internal assertion for tensors that are not sparse',
  },
  {
    name: 'resize_as_sparse',
    reason: 'the functional form of resize_as_sparse_; an internal assertion for tensors that are not sparse',
  },
]

/** @type {readonly { test: (schema: import('./schema.mjs').Schema) => boolean, reason: string }[]} */
export const hiddenOverloads = [
  {
    test: (schema) => schema.arguments.some((each) => each.isOut),
    reason: 'writes into `out` tensors; a scope reuses memory without them',
  },
  { test: (schema) => schema.overload === 'out' || schema.overload.endsWith('_out'), reason: 'an `out=` form' },
  {
    test: (schema) =>
      [...schema.arguments, ...schema.returns].some((each) =>
        /Dimname|Storage|Stream|QScheme|Future|Dict|__torch__|\bt\b|\bAny\b|\bDevice\b(?!\?)(?= self)/.test(each.type),
      ),
    reason: 'named tensors (deprecated), storages and types that JavaScript does not have',
  },
  {
    test: (schema) =>
      !/Tensor/.test(JSON.stringify([schema.arguments.map((a) => a.type), schema.returns.map((a) => a.type)])),
    reason: 'works on numbers alone: JavaScript has its own',
  },
  { test: (schema) => schema.arguments.length > 40, reason: 'too many arguments' },
]
