import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { WeightsFileError } from '../../../src/torch/files/index.js'
import { unpickle } from '../../../src/torch/files/pickle.js'
import { PickleSource } from '../../../src/torch/files/pickle-source.js'
import { PickleStub, type PickleValue } from '../../../src/torch/files/pickle-values.js'
import { fixture } from './fake.js'

function read(bytes: Buffer | string, maxMemory?: number): PickleValue {
  const buffer = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes
  return unpickle(new PickleSource(buffer), { path: 'a file', maxMemory })
}

const repeat = (text: string, times: number) => Buffer.alloc(text.length * times, text, 'latin1')

describe('unpickle', () => {
  it.each([0, 1, 2, 3, 4, 5])('reads what Python writes with protocol %i', (protocol) => {
    const value = read(readFileSync(fixture(`plain-${protocol}.pkl`)))
    expect(value).toEqual(
      new Map<string, unknown>([
        ['i', [0, 1, -1, 255, 256, 65536, -(2 ** 31), 2 ** 31, 2n ** 53n, 2n ** 53n + 1n, -(2n ** 70n), true, false]],
        ['f', [0.5, -1e300, Infinity, -Infinity]],
        ['s', ['', 'a\'b"c\\d\n', 'é', '€😀', 'x'.repeat(300)]],
        ['t', [[], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]],
        ['n', null],
        ['b', Uint8Array.of(0, 0x80, 0xff)],
      ]),
    )
  })

  it('reads the instructions that only old or odd writers use', () => {
    expect(read("S'a\\x41\\n\\'\\101'\n.")).toBe("aA\n'A")
    expect(read('U\x02hi.')).toBe('hi')
    expect(read('T\x02\x00\x00\x00\xe9\xe8.')).toBe('éè')
    expect(read('I-12\n.')).toBe(-12)
    expect(read('L123456789012345678901234567890L\n.')).toBe(123456789012345678901234567890n)
    expect(read('F1e3\n.')).toBe(1000)
    expect(read('Fnan\n.')).toBeNaN()
    expect(read('(I1\nI2\nl.')).toEqual([1, 2])
    expect(read("(S'k'\nI2\nd.")).toEqual(new Map([['k', 2]]))
    expect(read('(K\x01K\x02t0N.')).toBeNull()
    expect(read('(K\x01K\x021N.')).toBeNull()
    expect(read('K\x01(0.')).toBe(1)
    expect(read('K\x072\x86.')).toEqual([7, 7])
    expect(read('\x8b\x02\x00\x00\x00\x00\xff.')).toBe(-256)
    expect(read('\x8a\x00.')).toBe(0)
    expect(read('\x8f(K\x01K\x01K\x02\x90.')).toEqual(new Set([1, 2]))
    expect(read('(K\x05\x91.')).toEqual(new Set([5]))
    expect(read('\x96\x02\x00\x00\x00\x00\x00\x00\x00ab.')).toEqual(Uint8Array.of(97, 98))
    expect(read('\x8d\x02\x00\x00\x00\x00\x00\x00\x00ab.')).toBe('ab')
    expect(read('N\x94\x80\x05N\x940h\x00.')).toBeNull()
  })

  it('runs nothing: what is called stays a stub', () => {
    for (const call of [
      "cos\nsystem\n(S'touch /tmp/cleft-pickle-was-run'\ntR.",
      "(S'touch /tmp/cleft-pickle-was-run'\nios\nsystem\n.",
      "(cos\nsystem\nS'touch /tmp/cleft-pickle-was-run'\no.",
      '\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x22touch /tmp/cleft-pickle-was-run000\x85R.',
    ]) {
      const value = read(call)
      expect(value).toBeInstanceOf(PickleStub)
      expect(value).toMatchObject({ module: 'os', name: 'system', args: [expect.stringMatching(/^touch/)] })
    }
    // names of JavaScript's own are names like others
    for (const name of ['constructor', '__proto__', 'toString', 'eval', 'process']) {
      expect(read(`cbuiltins\n${name}\n(tR.`)).toMatchObject({ module: 'builtins', name, args: [] })
    }
    expect(read('c__builtin__\ngetattr\n(N\x8c\x01xtR(tR.')).toMatchObject({ name: 'getattr()', args: [] })
    expect(read('ctorch.storage\n_load_from_bytes\n(NtR.')).toBeInstanceOf(PickleStub)
  })

  it('keeps the state of objects, and what is appended to them', () => {
    const text = "ca\nB\n)\x81}S'__proto__'\nK\x01sb(K\x01K\x02e(S'k'\nK\x03u."
    const stub = read(text) as PickleStub
    expect(stub.state).toEqual(new Map([['__proto__', 1]]))
    expect(stub.items).toEqual([1, 2])
    expect(stub.entries).toEqual(new Map([['k', 3]]))
    expect((read("ca\nB\n)}S'k'\nK\x01s\x92.") as PickleStub).kwargs).toEqual(new Map([['k', 1]]))
    expect({}).not.toHaveProperty('k')
  })

  it('keeps one object one', () => {
    const list = read(']q\x00h\x00a.') as PickleValue[]
    expect(list[0]).toBe(list)
    const [a, b] = read(']q\x00h\x00\x86.') as [PickleValue, PickleValue]
    expect(a).toBe(b)
  })

  it('reads an exponential pickle as what it is: references', () => {
    let text = ']q\x00'
    for (let i = 0; i < 200; i += 1)
      text += `]q${String.fromCharCode(i + 1)}(${`h${String.fromCharCode(i)}`.repeat(10)}e`
    expect(read(`${text}.`)).toHaveLength(10)
  })

  it.each<[string, Buffer | string, RegExp]>([
    ['nothing', '', /STOP, but the pickle ends/],
    ['no STOP', 'N', /pickle ends/],
    ['STOP with nothing', '.', /stack, but it is empty/],
    ['an unknown instruction', '\xff', /not 0xff/],
    ['protocol 6', '\x80\x06N.', /protocol 0 to 5, not 6/],
    ['POP of nothing', '0', /empty/],
    ['DUP of nothing', '2.', /empty/],
    ['values below a MARK', 'K\x01(\x85.', /empty/],
    ['TUPLE without MARK', 'K\x01t.', /MARK/],
    ['APPENDS without MARK', ']K\x01e.', /MARK/],
    ['APPEND to a number', 'K\x01K\x02a.', /list to append to, not a number/],
    ['SETITEM on a list', ']K\x01K\x02s.', /dict to set items of, not a list/],
    ['an odd number of items', '}(K\x01u.', /in pairs/],
    ['BUILD of a number', 'K\x01Nb.', /object to restore, not a number/],
    ['a call of a number', 'K\x01)R.', /function or a class to call, not a number/],
    ['a call of text', "S'os.system'\n)R.", /not a string/],
    ['a call without a tuple', 'cos\nsystem\nNR.', /arguments of os.system in a tuple/],
    ['a memo that is not set', 'h\x05.', /memo 5/],
    ['a memo of words', 'gxyz\n.', /number of a memo/],
    ['a global of numbers', 'K\x01K\x02\x93.', /name of a global to be a string/],
    ['text of 4 GiB', 'X\xff\xff\xff\xff.', /4294967295 more bytes/],
    ['text of 2^64 bytes', '\x8d\xff\xff\xff\xff\xff\xff\xff\xff.', /length below 2\^53/],
    ['bytes of 2^50', '\x8e\x00\x00\x00\x00\x00\x00\x04\x00.', /more bytes/],
    ['an integer of 2 GiB', '\x8b\xff\xff\xff\x7f.', /1024 bytes at most/],
    ['an integer of 100,000 digits', `I${'9'.repeat(100000)}\n.`, /line/],
    ['a number that is none', 'F0x10\n.', /number, not "0x10"/],
    ['an integer that is none', 'I1.5\n.', /integer, not "1.5"/],
    ['a string without quotes', 'Sabc\n.', /in quotes/],
    ['a line that does not end', 'Sabc', /line/],
    ['persistent data', 'K\x01Q.', /data elsewhere/],
    ["an extension's number", '\x82\x01.', /registry/],
    ['buffers elsewhere', '\x97.', /kept elsewhere/],
    ['a tensor over nothing', 'ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))NNtR.', /over a storage, not over None/],
  ])('refuses %s', (_what, bytes, message) => {
    expect(() => read(bytes)).toThrow(WeightsFileError)
    expect(() => read(bytes)).toThrow(message)
  })

  it.each<[string, string]>([
    ['lists', ']'],
    ['dicts', '}'],
    ['sets', '\x8f'],
    ['tuples', ')'],
    ['marks', '('],
    ['copies', '2'],
    ['memos', '\x94'],
    ['stubs', 'ca\nb\n'],
    ['calls', 'ca\nb\n)R'],
    ['numbers', 'G????????'],
  ])('refuses to fill the memory with %s', (_what, text) => {
    expect(() => read(Buffer.concat([Buffer.from('N'), repeat(text, (32 << 20) / text.length)]), 16 << 20)).toThrow(
      /16777216 bytes of memory at most/,
    )
  })

  it('takes deep objects without calling itself', () => {
    const depth = 300_000
    let value = read(Buffer.concat([repeat(']', depth), repeat('a', depth - 1), Buffer.from('.')])) as PickleValue[]
    let levels = 1
    while (value.length > 0) {
      value = value[0] as PickleValue[]
      levels += 1
    }
    expect(levels).toBe(depth)
  })

  it('survives whatever bytes come, without any other error', () => {
    // a fixed generator, so that a failure can be repeated
    let state = 12345
    const random = () => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      return state >>> 16
    }
    const seeds = [0, 2, 4].map((protocol) => readFileSync(fixture(`plain-${protocol}.pkl`)))
    for (let round = 0; round < 3000; round += 1) {
      const bytes = Buffer.from(seeds[round % 3] as Buffer)
      for (let i = 0; i <= random() % 8; i += 1) bytes[random() % bytes.length] = random() & 255
      try {
        read(bytes, 1 << 20)
      } catch (thrown) {
        if (!(thrown instanceof WeightsFileError)) throw thrown
      }
    }
  })
})
