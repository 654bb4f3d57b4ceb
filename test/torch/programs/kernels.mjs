// Operators with kernels of our own in float32, and the same in float64, which libtorch computes: prints the greatest
// differences of results and of gradients, of what is greatest in each.
import * as torch from '../../../dist/torch/index.js'

torch.setNumThreads(2)
torch.manualSeed(0)
const call = (name, ...values) => torch.callOperator(`cleft::${name}`, ...values)
const random = (shape) => torch.randn(shape, { dtype: 'float64' })
// [..., columns] whose rows lie apart
const apart = (shape) => random([...shape.slice(0, -1), shape.at(-1) + 3]).narrow(-1, 1, shape.at(-1))
// [rows, columns] that lies column by column
const across = ([rows, columns]) => random([columns, rows]).t()

const cases = {}
const add = (name, run, inputs) => {
  cases[name] = { run, inputs }
}

for (const [batch, tokens, heads, width] of [
  [2, 1, 3, 16],
  [1, 17, 2, 32],
  [2, 261, 3, 64],
  [1, 257, 2, 80],
  [3, 16, 1, 64],
  [1, 5, 3, 7],
  [1, 1100, 1, 24],
  [0, 5, 2, 8],
]) {
  const shape = [batch, tokens, 3 * heads * width]
  for (const [kind, make] of Object.entries({ '': random, ', apart': apart })) {
    add(`self_attention ${shape} of ${heads}${kind}`, (x) => call('self_attention', x, heads), [make(shape)])
  }
}
for (const shape of [
  [2, 261, 192],
  [1, 17, 96],
]) {
  const bfloat16 = (x) => call('self_attention', x.to('bfloat16'), 2).to(x.dtype)
  add(
    `self_attention ${shape} in bfloat16`,
    (x) => (x.dtype === 'float32' ? bfloat16(x) : call('self_attention', x, 2)),
    [random(shape)],
  )
}
// a sample that is no number is its own affair
add(
  'self_attention beside what is no number',
  (x) =>
    call('self_attention', torch.cat([x.detach().mul(Number.NaN), x, x.detach().mul(Number.NaN)]), 2).narrow(0, 1, 1),
  [random([1, 20, 96])],
)
// a row of scores that leave the range of exp() without the greatest taken off
add('self_attention of large scores', (x) => call('self_attention', x.mul(3), 2), [random([1, 40, 96])])

for (const [rows, inputs, outputs] of [
  [1, 4, 1],
  [5, 33, 50],
  [17, 16, 7],
  [100, 192, 64],
  [523, 64, 200],
  [300, 800, 70],
  [0, 6, 5],
]) {
  const of = `[${rows}, ${inputs}] to ${outputs}`
  const weight = [outputs, inputs]
  for (const [kind, make, turn] of [
    ['', random, random],
    [', apart', apart, across],
  ]) {
    const given = [make([rows, inputs]), turn(weight), random([outputs])]
    add(`linear ${of}${kind}`, (x, w, b) => call('linear', x, w, b), given)
    add(`frozen linear ${of}${kind}`, (x, w, b) => call('linear', x, w.detach(), b.detach()), given)
    add(`linear without a bias ${of}${kind}`, (x, w) => call('linear', x, w, null), given.slice(0, 2))
    add(`norm_linear ${of}${kind}`, (x, g, c, w, b) => call('norm_linear', x, g, c, 1e-6, w, b), [
      make([rows, inputs]),
      random([inputs]),
      random([inputs]),
      turn(weight),
      random([outputs]),
    ])
    for (const activation of ['none', 'gelu', 'gelu_tanh']) {
      add(
        `linear_residual with ${activation} ${of}${kind}`,
        (r, x, w, b, g) => call('linear_residual', r, x, w, b, g, activation),
        [make([rows, outputs]), make([rows, inputs]), turn(weight), random([outputs]), random([outputs])],
      )
    }
  }
  add(`linear_residual alone ${of}`, (r, x, w) => call('linear_residual', r, x, w, null, null, 'gelu'), [
    random([rows, outputs]),
    random([rows, inputs]),
    random(weight),
  ])
  add(`frozen linear_residual ${of}`, (r, x, w) => call('linear_residual', r, x, w.detach(), null, null, 'gelu'), [
    random([rows, outputs]),
    random([rows, inputs]),
    random(weight),
  ])
}
// far from zero, where the distribution function is 0 or 1
add('linear_residual of large values', (r, x, w) => call('linear_residual', r, x.mul(8), w, null, null, 'gelu'), [
  random([40, 8]),
  random([40, 24]),
  random([8, 24]),
])

const found = {}
for (const [name, { run, inputs }] of Object.entries(cases)) {
  torch.scope(() => {
    const of = (dtype) => {
      const given = inputs.map((input) => (dtype === 'float64' ? input : like(input)).detach().requiresGrad_())
      const result = run(...given)
      const weights = torch.arange(result.numel(), { dtype: 'float64' }).cos().reshape(result.shape)
      const gradients = torch.autograd.grad([result], given, { gradOutputs: [weights.to(dtype)], allowUnused: true })
      return [result, ...gradients].map((each) => each?.double() ?? null)
    }
    const [one, two] = [of('float32'), of('float64')]
    found[name] = one.map((value, at) => {
      const expected = two[at]
      if (value === null || expected === null) return value === expected ? 0 : Number.MAX_VALUE
      if (expected.numel() === 0) return 0
      const most = expected.abs().max().item()
      return value.sub(expected).abs().max().item() / (most || 1)
    })
  })
}
console.log(JSON.stringify(found))

/** In float32, with the layout that it has. */
function like(tensor) {
  return torch.emptyStrided(tensor.shape, tensor.stride(), { dtype: 'float32' }).copy_(tensor)
}
