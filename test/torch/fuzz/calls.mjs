/* Which operators there are, and how one is called and looked at afterwards. */
import { readFileSync } from 'node:fs'
import { junk, makeArguments } from './arguments.mjs'
import { guardOf, materialize, native, torch } from './materialize.mjs'
import { Random } from './random.mjs'

/**
 * @typedef {{ name: string, methods: Map<string, string>, functions: Map<string, string>, overloads: Set<string> }} Target
 * @typedef {{ name: string, overload: string, how: 'method' | 'function' | 'keywords' | 'operator' | 'raw', values: unknown[] }} Call
 */

/** Not in the generated surface: what handwritten functions call (unfold, fold, interpolate, unique, factories). */
const behind = {
  im2col: [''],
  col2im: [''],
  nll_loss_nd: [''],
  _unique2: [''],
  _softmax: [''],
  arange: ['', 'start', 'start_step'],
  full: [''],
  empty_strided: [''],
  upsample_linear1d: ['vec'],
  upsample_bilinear2d: ['vec'],
  upsample_bicubic2d: ['vec'],
  upsample_trilinear3d: ['vec'],
  upsample_nearest1d: ['vec'],
  upsample_nearest2d: ['vec'],
  upsample_nearest3d: ['vec'],
  _upsample_nearest_exact1d: ['vec'],
  _upsample_nearest_exact2d: ['vec'],
  _upsample_nearest_exact3d: ['vec'],
  _upsample_bilinear2d_aa: ['vec'],
  _upsample_bicubic2d_aa: ['vec'],
  reflection_pad1d: [''],
  reflection_pad2d: [''],
  reflection_pad3d: [''],
  replication_pad1d: [''],
  replication_pad2d: [''],
  replication_pad3d: [''],
}

/** Every operator of the generated surface, by its name in ATen. @returns {Target[]} */
export function listTargets() {
  const text = readFileSync(`${process.env.CLEFT_DIST}/torch/ops.generated.js`, 'utf8')
  /** @type {Map<string, any>} */
  const targets = new Map()
  const target = (name) => {
    if (!targets.has(name)) targets.set(name, { name, method: null, function: null, overloads: new Set() })
    return targets.get(name)
  }
  for (const [, publicName, name, overloads] of text.matchAll(/^ +(\w+): \['aten::(\w+)', '([^']*)'\]/gm)) {
    const found = target(name)
    found.method = publicName
    for (const overload of overloads.split(',')) found.overloads.add(overload)
  }
  for (const [, publicName, name, list] of text.matchAll(/asFunction\('([\w.]+)', 'aten::(\w+)', \[([^\]]*)\]\)/g)) {
    const found = target(name)
    found.function = publicName
    for (const [, overload] of list.matchAll(/'([^']*)'/g)) found.overloads.add(overload)
  }
  for (const [name, overloads] of Object.entries(behind))
    for (const overload of overloads) target(name).overloads.add(overload)
  return [...targets.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

const descriptions = new Map()
export function describeOverload(name, overload) {
  const key = `${name}.${overload}`
  if (!descriptions.has(key)) descriptions.set(key, native.lookup(`aten::${name}`, overload))
  return descriptions.get(key)
}

/** The call number `index` of a seed: the same one each time. @param {any} target @returns {Call} */
export function makeCall(target, seed, index) {
  const random = new Random(seed, index)
  const overload = random.pick([...target.overloads])
  const description = describeOverload(target.name, overload)
  if (random.chance(0.02)) {
    return {
      name: target.name,
      overload,
      how: random.chance(0.5) || isGuarded(target.name, overload, description) ? 'function' : 'raw',
      values: junk(random),
    }
  }
  const values = makeArguments(random, target.name, description.arguments)
  let how = random.pick(['method', 'method', 'function', 'keywords', 'operator'])
  // guards are in TypeScript: below them only what has none
  if (random.chance(0.05) && !isGuarded(target.name, overload, description)) how = 'raw'
  return { name: target.name, overload, how, values }
}

const camelCase = (name) => name.replace(/(?<=[A-Za-z0-9])_+([A-Za-z0-9])/g, (_, letter) => letter.toUpperCase())
const isUndefined = (value) => value === undefined

const isGuarded = (name, overload, description) =>
  guardOf(
    `aten::${name}${overload && `.${overload}`}`,
    description.arguments.map((each) => camelCase(each.name)),
  ) !== undefined

function functionOf(path) {
  // torch.slice is another function, for indexing
  if (path === 'slice') return undefined
  return path.split('.').reduce((object, key) => object?.[key], torch)
}

/** Positional values, then those that can only be given by name in a last object. */
function splitArguments(description, values, fromKeyword) {
  const positional = []
  const keywords = {}
  for (const [at, value] of values.entries()) {
    const argument = description.arguments[at]
    if (argument === undefined || (!argument.keywordOnly && at < fromKeyword)) positional.push(value)
    else if (!isUndefined(value)) keywords[camelCase(argument.name)] = value
  }
  while (positional.length > 0 && isUndefined(positional.at(-1))) positional.pop()
  return Object.keys(keywords).length > 0 ? [...positional, keywords] : positional
}

const isTensor = (value) => value instanceof torch.Tensor

/** Makes the call and returns what it gave. @param {any} target @param {Call} call */
export function perform(target, call) {
  const values = call.values.map(materialize)
  const description = describeOverload(call.name, call.overload)
  const lower = (value) =>
    isTensor(value) ? value.handle : Array.isArray(value) && value.length < 1000 ? value.map(lower) : value
  if (call.how === 'raw')
    return { values, result: raise(native.call(description.id, ...values.map(lower)), description) }
  if (call.how === 'keywords') {
    const required = description.arguments.findIndex((each) => each.hasDefault || each.keywordOnly)
    const list = splitArguments(description, values, required < 0 ? 99 : required)
    if (target?.function && functionOf(target.function)) return { values, result: functionOf(target.function)(...list) }
    return { values, result: torch.callOperator(`aten::${call.name}${call.overload && `.${call.overload}`}`, ...list) }
  }
  const list = splitArguments(description, values, 99)
  if (call.how === 'method' && target?.method && isTensor(list[0]) && typeof list[0][target.method] === 'function') {
    return { values, result: list[0][target.method](...list.slice(1)) }
  }
  if (call.how !== 'operator' && target?.function && functionOf(target.function)) {
    return { values, result: functionOf(target.function)(...list) }
  }
  return { values, result: torch.callOperator(`aten::${call.name}${call.overload && `.${call.overload}`}`, ...list) }
}

function raise(result, description) {
  const tensor = (handle) => (typeof handle === 'number' ? new torch.Tensor(handle) : handle)
  if (description.returns === 'tensor') return tensor(result)
  if (description.returns === 'tensors') return result.map(tensor)
  if (description.returns === 'several')
    return result.map((each, k) => (description.returnKinds[k] === 'tensor' ? tensor(each) : each))
  return result
}

/** Texts that no error may have: libtorch's own broken promises, and exceptions that say nothing. */
const unfit =
  /INTERNAL ASSERT|please report a bug|C\+\+ exception|^[\w.]+: (vector::|basic_string|std::|stoi|stol|map::at|bad optional|bad_|deque|invalid (vector|map|string))|not an exception|cannot create std::vector|frame #\d|0x[0-9a-f]{8}|terminate called/

/** What is wrong with an error, or undefined. @param {unknown} error */
function judge(error) {
  if (!(error instanceof Error)) return `threw what is no Error: ${String(error)}`
  const known = error instanceof torch.TorchError || error instanceof TypeError || error instanceof RangeError
  if (!known) return `threw a ${error.name}: ${error.message}`
  if (error.message === '') return 'threw an error without a message'
  if (unfit.test(error.message)) return error.message.slice(0, 600)
  return undefined
}

function tensorsOf(value, found = []) {
  if (isTensor(value)) found.push(value)
  else if (Array.isArray(value)) for (const item of value) tensorsOf(item, found)
  return found
}

/** Makes a call in a scope, reads its results, runs backward. @returns {{ findings: string[], outcome: string }} */
export function tryCall(target, call) {
  const findings = []
  const before = native.counters().live
  let outcome = 'returned'
  const attempt = (what, run) => {
    try {
      return run()
    } catch (error) {
      const finding = judge(error)
      if (finding !== undefined) findings.push(`${what}: ${finding}`)
      else if (what === 'call') outcome = error.name
      return undefined
    }
  }
  torch.scope(() => {
    const given = attempt('call', () => perform(target, call))
    if (given === undefined) return
    for (const tensor of new Set([...tensorsOf(given.result).slice(0, 8), ...tensorsOf(given.values)])) {
      attempt('reading', () => {
        if (tensor.isAlive && tensor.device === 'cpu' && tensor.numel() <= 65536) native.toTypedArray(tensor.handle)
      })
    }
    for (const tensor of tensorsOf(given.result).slice(0, 8)) {
      attempt('backward', () => {
        if (!tensor.isAlive || !tensor.requiresGrad || tensor.isMeta || tensor.numel() > 65536) return
        const total = torch.callOperator('aten::sum', tensor)
        if (tensor.dtype.startsWith('complex'))
          torch.callOperator('aten::real', total).backward(null, { createGraph: true })
        else total.backward(null, { createGraph: call.values.length % 2 === 0 })
      })
    }
    for (const tensor of tensorsOf(given.values)) {
      attempt('gradient', () => {
        if (!tensor.isAlive || !tensor.isLeaf || !tensor.requiresGrad) return
        const gradient = tensor.grad
        if (gradient === null) return
        if (gradient.numel() <= 65536 && gradient.device === 'cpu') native.toTypedArray(gradient.handle)
        if (gradient.requiresGrad) torch.callOperator('aten::sum', gradient).backward()
        // a gradient that was made with createGraph holds its own tensor
        tensor.grad = null
      })
    }
  })
  const after = native.counters().live
  if (after !== before) findings.push(`leak: ${after - before} tensors more than before`)
  return { findings, outcome }
}
