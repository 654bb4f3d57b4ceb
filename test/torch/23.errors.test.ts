import { describe, expect, it } from 'vitest'
import * as torch from '../../src/torch/index.js'
import { inScope, liveTensors } from './helpers.js'

function caughtFrom(run: () => unknown): Error {
  try {
    run()
  } catch (error) {
    if (error instanceof Error) return error
    throw new Error(`expected an Error, but received ${String(error)}`)
  }
  throw new Error('expected an error, but none was thrown')
}

const addsWrongShapes = () => torch.scope(() => torch.ones([2]).add(torch.ones([3])))

describe('TorchError', () => {
  it('is an Error of its own, with the message of libtorch and the operator', () => {
    const error = caughtFrom(addsWrongShapes)
    expect(error).toBeInstanceOf(torch.TorchError)
    expect(error).not.toBeInstanceOf(TypeError)
    expect(error.name).toBe('TorchError')
    expect(error.message).toBe(
      'add: The size of tensor a (2) must match the size of tensor b (3) at non-singleton dimension 0',
    )
  })

  it('has no C++ backtrace', () => {
    inScope(() => {
      const x = torch.ones([2, 3], { requiresGrad: true })
      const runs: (() => unknown)[] = [
        addsWrongShapes,
        () => x.matmul(x),
        () => x.view(7),
        () => x.at(5),
        () => x.backward(),
        () => torch.zeros([2], { device: 'meta' }).item(),
        () => x.add(torch.zeros([2, 3], { device: 'meta' })),
        () => torch.linalg.inv(x),
        () => torch.linalg.cholesky(torch.zeros([2, 2])),
        () => torch.cat([]),
        () => torch.conv2d(x, x),
        () => torch.embedding(x, torch.tensor([9n])),
        () => x.to('cuda'),
        () => torch.callOperator('aten::_sparse_mm', x, x),
      ]
      for (const run of runs) {
        const { message, stack } = caughtFrom(run)
        expect(message, run.toString()).not.toMatch(/Exception raised from|frame #\d|\n\s*$|C\+\+ CapturedTraceback/)
        expect(message, run.toString()).not.toContain('INTERNAL ASSERT')
        expect(message.length).toBeGreaterThan(5)
        expect(stack).toContain('23.errors.test.ts')
      }
    })
  })

  it('has the stack of JavaScript: where the call was', () => {
    function innermost() {
      return torch.ones([2]).matmul(torch.ones([3]))
    }
    const error = caughtFrom(() => torch.scope(innermost))
    expect(error.stack).toMatch(/^TorchError: /)
    expect(error.stack).toMatch(/at innermost \(.*23\.errors\.test\.ts/)
  })

  it('comes out of a callback as it went in', () => {
    inScope(() => {
      const x = torch.ones([2], { requiresGrad: true })
      let inside: unknown
      x.registerHook((gradient) => {
        try {
          return gradient.view(5)
        } catch (error) {
          inside = error
          throw error
        }
      })
      expect(caughtFrom(() => x.mul(2).sum().backward())).toBe(inside)
      expect(inside).toBeInstanceOf(torch.TorchError)
    })
  })

  it('leaves no tensors behind', () => {
    const before = liveTensors()
    for (let repeat = 0; repeat < 10; repeat += 1) caughtFrom(addsWrongShapes)
    expect(liveTensors()).toBe(before)
  })

  it('of memory that cannot be had: everything works on', () => {
    const error = caughtFrom(() => torch.empty([2 ** 45]))
    expect(error).toBeInstanceOf(torch.TorchError)
    expect(error.message).toMatch(/memory|allocate/)
    using x = torch.ones([2])
    expect(x.toArray()).toEqual([1, 1])
  })
})

describe('wrong arguments of what is written by hand', () => {
  type Loose = Record<string, (...values: unknown[]) => unknown>
  it.each<[string, (x: torch.Tensor & Loose, all: Loose) => unknown, new () => Error, RegExp]>([
    ['tensor of nothing', (_, all) => all.tensor!(), TypeError, /^tensor: /],
    ['zeros of a string', (_, all) => all.zeros!('a'), TypeError, /^zeros: /],
    [
      'zeros of NaN',
      (_, all) => all.zeros!([Number.NaN]),
      RangeError,
      /^zeros: expected size to be a safe whole number, but received NaN/,
    ],
    ['zeros of 2^53', (_, all) => all.zeros!([2 ** 53]), RangeError, /^zeros: expected size/],
    ['full of an unknown dtype', (_, all) => all.full!([1], 1, { dtype: 'real' }), RangeError, /^full: expected dtype/],
    ['arange of a string', (_, all) => all.arange!('a'), TypeError, /^arange: /],
    ['arange of nothing', (_, all) => all.arange!(), TypeError, /^arange: /],
    ['fromTypedArray of an array', (_, all) => all.fromTypedArray!([1, 2], [2]), TypeError, /expected a typed array/],
    [
      'fromTypedArray without a shape',
      (_, all) => all.fromTypedArray!(new Float32Array(2)),
      TypeError,
      /^(tensor|fromTypedArray): expected shape/,
    ],
    [
      'to with an unknown option',
      (x) => x.to!({ dtyp: 'float64' } as never),
      TypeError,
      /^to: expected the options .* but received dtyp/,
    ],
    ['to of a number', (x) => x.to!(5 as never), TypeError, /^to: /],
    ['reshape to NaN', (x) => x.reshape!([Number.NaN]), RangeError, /^reshape: expected shape/],
    ['sum over a fraction', (x) => x.sum!(0.5), RangeError, /^sum: expected dim/],
    ['transpose of strings', (x) => x.transpose!('a' as never, 'b' as never), TypeError, /^transpose: /],
    [
      'requiresGrad_ of a string',
      (x) => x.requiresGrad_!('yes' as never),
      TypeError,
      /^requiresGrad_: expected requiresGrad to be a boolean/,
    ],
    [
      'registerHook of no function',
      (x) => x.requiresGrad_!().registerHook!(5 as never),
      TypeError,
      /^registerHook: |expected a function/,
    ],
    [
      'backward of a number',
      (x) => x.requiresGrad_!().backward!(5 as never),
      TypeError,
      /^backward: expected gradient to be a Tensor/,
    ],
    ['isSame of a number', (x) => x.isSame!(5 as never), TypeError, /^isSame: expected other to be a Tensor/],
    ['grad of a number', (x) => Object.assign(x, { grad: 5 }), TypeError, /^grad: expected value to be a Tensor/],
    ['noGrad of no function', (_, all) => all.noGrad!(5), TypeError, /./],
    ['scope of no function', (_, all) => all.scope!(5), TypeError, /./],
    ['where of numbers', (_, all) => all.where!(1, 2, 3), TypeError, /^where: /],
    [
      'setGradEnabled of a string',
      (_, all) => all.setGradEnabled!('no'),
      TypeError,
      /^setGradEnabled: expected enabled to be a boolean/,
    ],
    ['send of a number', (_, all) => all.send!(5), TypeError, /^send: expected tensor to be a Tensor/],
    ['receive of nothing', (_, all) => all.receive!(), TypeError, /^receive: expected a token/],
  ])('%s', (_, run, kind, message) => {
    const before = liveTensors()
    torch.scope(() => {
      const x = torch.ones([2, 2]) as torch.Tensor & Loose
      const error = caughtFrom(() => run(x, torch as unknown as Loose))
      expect(error).toBeInstanceOf(kind)
      expect(error.message).toMatch(message)
      expect(error.stack).toContain('23.errors.test.ts')
    })
    expect(liveTensors()).toBe(before)
    expect(torch.isGradEnabled()).toBe(true)
  })
})
