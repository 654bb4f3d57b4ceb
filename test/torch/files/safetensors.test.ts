import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createFiles, inspect, WeightsFileError } from '../../../src/torch/files/index.js'
import { backend, calls, type FakeTensor, fake, files, fixture, liveHandles, temporaryFolder } from './fake.js'

const folder = temporaryFolder()
let count = 0

/** A file with this header (text, or what becomes JSON) and so many bytes of data. */
function written(header: unknown, dataBytes = 0, length?: bigint): string {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(length ?? BigInt(json.length))
  count += 1
  const path = join(folder, `case-${count}.safetensors`)
  writeFileSync(path, Buffer.concat([size, json, Buffer.alloc(dataBytes)]))
  return path
}

const F32 = (shape: unknown, begin: unknown, end: unknown) => ({ dtype: 'F32', shape, data_offsets: [begin, end] })

function refusal(path: string): string {
  try {
    files.openSafetensors(path)
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(WeightsFileError)
    const { message } = thrown as WeightsFileError
    expect(message).not.toMatch(/\p{Cc}/u)
    expect(message).toContain(path)
    return message
  }
  throw new Error(`expected ${path} to be refused`)
}

describe('openSafetensors', () => {
  it("reads Python's file: every dtype, names, shapes, values", () => {
    const file = files.openSafetensors(fixture('python.safetensors'))
    expect(file.metadata).toEqual(new Map([['format', 'pt']]))
    expect(file.names).toHaveLength(20)
    const dtypes = file.names.filter((name) => file.info(name).dtype === name)
    expect(dtypes).toHaveLength(16)
    for (const name of dtypes) {
      const values = file.tensor(name).values.map(Number)
      const expected = { bool: [0, 1, 1, 1], complex64: [0, 0, 1, 0, 2, 0, 3, 0] }[name] ?? [0, 1, 2, 3]
      expect(values, name).toEqual(expected)
    }
    expect(file.info('empty')).toMatchObject({ shape: [0, 3], byteLength: 0 })
    expect(file.tensor('empty').shape).toEqual([0, 3])
    expect(file.tensor('scalar').shape).toEqual([])
    expect(file.tensor('scalar').values).toEqual([2.5])
    expect(file.tensor('é😀').values).toEqual([1])
  })

  it('maps the file when the first tensor is asked for, and once', () => {
    calls.length = 0
    const file = files.openSafetensors(fixture('python.safetensors'))
    expect(file.info('float32').byteLength).toBe(16)
    expect(calls).toEqual([])
    file.tensor('float32')
    file.tensor('int64')
    expect(calls).toEqual(['mapFile', 'mapped', 'mapped'])
    file.close()
    expect(() => file.tensor('float32')).toThrow(/was closed/)
  })

  it('opens a file of a gigabyte by its header alone', () => {
    const path = join(folder, 'large.safetensors')
    const bytes = 1 << 30
    const json = Buffer.from(JSON.stringify({ big: F32([bytes / 4], 0, bytes) }))
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(BigInt(json.length))
    const fd = openSync(path, 'w')
    writeSync(fd, Buffer.concat([size, json]))
    ftruncateSync(fd, 8 + json.length + bytes)
    closeSync(fd)
    const before = process.memoryUsage().rss
    const start = performance.now()
    const file = files.openSafetensors(path)
    expect(performance.now() - start).toBeLessThan(50)
    expect(process.memoryUsage().rss - before).toBeLessThan(10e6)
    expect(file.info('big').shape).toEqual([bytes / 4])
  })

  it('takes names that objects have of their own', () => {
    const header =
      '{"__proto__":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"constructor":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}'
    const file = files.openSafetensors(written(header, 8))
    expect(file.names).toEqual(['__proto__', 'constructor'])
    expect(file.info('__proto__').shape).toEqual([1])
    expect(file.has('toString')).toBe(false)
    expect(() => file.info('toString')).toThrow(/expected a tensor "toString".*"__proto__", "constructor"/)
    expect(() => file.tensor('hasOwnProperty')).toThrow(WeightsFileError)
  })

  it('takes a header padded with blanks, metadata alone, escapes, fields to come, and zero sizes', () => {
    expect(files.openSafetensors(written('{}  \n ')).names).toEqual([])
    expect(files.openSafetensors(written({ __metadata__: { a: 'b' } })).metadata.get('a')).toBe('b')
    const file = files.openSafetensors(
      written(
        String.raw`{ "a\u00e9\"" : {"new":[{"x":[1,-2.5e3,null]},true,{}],"dtype":"F32","shape":[2],"data_offsets":[0,8]},` +
          '"none":{"dtype":"U8","shape":[0,9007199254740991,9007199254740991],"data_offsets":[8,8]}}',
        8,
      ),
    )
    expect(file.names).toEqual(['aé"', 'none'])
  })

  it.each([
    ['an empty file', () => rawFile(Buffer.alloc(0)), /10 bytes at least, but it has 0/],
    ['a length of 2^63', () => written('{}', 0, 2n ** 63n), /length says 9223372036854775808/],
    ['a length of 2^64 - 1', () => written('{}', 0, 2n ** 64n - 1n), /length says 18446744073709551615/],
    ['a length above 100 MB', () => written('{}', 0, 100_000_001n), /100000000 bytes at most/],
    ['a length beyond the file', () => written('{}', 0, 3n), /inside the file's 10 bytes, but its length says 3/],
    ['no UTF-8', () => rawFile(Buffer.concat([Buffer.of(2, 0, 0, 0, 0, 0, 0, 0), Buffer.of(0x7b, 0xff)])), /UTF-8/],
    ['a byte order mark', () => written('\ufeff{}'), /begin with \{/],
    ['a list', () => written('[]'), /begin with \{/],
    ['a header that ends', () => written('{"a":{"dtype":"F32"'), /but it ends/],
    ['an open string', () => written('{"a'), /string at character 1 to end/],
    ['text after the header', () => written('{}{}'), /expected nothing more/],
    ['words that are not JSON', () => written('{"a":{"dtype":F32}}'), /expected a string/],
    [
      'a trailing comma',
      () => written('{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},}', 4),
      /expected a string/,
    ],
    ['bad escapes', () => written(String.raw`{"\q":1}`), /escapes/],
    ['deep nesting', () => written(`{"a":{"x":${'['.repeat(100000)}`), /128 deep/],
    ['metadata that is no text', () => written({ __metadata__: { a: 1 } }), /expected a string/],
    [
      'a tensor twice',
      () =>
        written(
          '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
          2,
        ),
      /"a" is there twice/,
    ],
    [
      'a tensor twice by an escape',
      () =>
        written(
          String.raw`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`,
          2,
        ),
      /"a" is there twice/,
    ],
    ['metadata twice', () => written('{"__metadata__":{},"__metadata__":{}}'), /"__metadata__" is there twice/],
    [
      'a field twice',
      () => written('{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
      /"dtype" is there twice/,
    ],
    [
      'a tensor without dtype',
      () => written({ a: { shape: [1], data_offsets: [0, 4] } }, 4),
      /expected dtype, shape and two/,
    ],
    ['an unknown dtype', () => written({ a: { dtype: 'F7', shape: [1], data_offsets: [0, 4] } }, 4), /dtype is "F7"/],
    [
      'a dtype in small letters',
      () => written({ a: { dtype: 'f32', shape: [1], data_offsets: [0, 4] } }, 4),
      /dtype is "f32"/,
    ],
    ['a negative size', () => written({ a: F32([-1], 0, 4) }, 4), /integer from 0 to 2\^53 - 1, not "-1"/],
    ['a size with a fraction', () => written({ a: F32([1.5], 0, 6) }, 6), /not "1.5"/],
    [
      'a size with an exponent',
      () => written('{"a":{"dtype":"U8","shape":[1e1],"data_offsets":[0,10]}}', 10),
      /not "1e1"/,
    ],
    [
      'a size beyond 2^53',
      () => written('{"a":{"dtype":"U8","shape":[9007199254740992],"data_offsets":[0,0]}}'),
      /2\^53/,
    ],
    ['a product beyond 2^53', () => written({ a: F32([2 ** 30, 2 ** 30], 0, 4) }, 4), /below 2\^53 bytes/],
    ['a product that wraps to 0', () => written({ a: F32([2 ** 32, 2 ** 32], 0, 0) }), /below 2\^53 bytes/],
    ['too many sizes', () => written({ a: F32(Array(100).fill(1), 0, 4) }, 4), /list of 64 integers at most/],
    ['a size that is text', () => written({ a: F32(['1'], 0, 4) }, 4), /expected a number/],
    [
      'offsets that lie about the size',
      () => written({ a: F32([2], 0, 4) }, 4),
      /to take 8 bytes, but its offsets are 0 to 4/,
    ],
    ['offsets that go backwards', () => written({ a: F32([1], 4, 0) }, 4), /offsets are 4 to 0/],
    [
      'three offsets',
      () => written({ a: { dtype: 'U8', shape: [1], data_offsets: [0, 1, 2] } }, 2),
      /list of 2 integers/,
    ],
    ['one offset', () => written({ a: { dtype: 'U8', shape: [1], data_offsets: [0] } }, 2), /two data_offsets/],
    ['negative offsets', () => written({ a: F32([1], -4, 0) }, 4), /not "-4"/],
    [
      'an end beyond the file',
      () => written({ a: F32([2], 0, 8) }, 4),
      /inside the 4 bytes of data, but it ends at byte 8/,
    ],
    ['overlaps', () => written({ a: F32([2], 0, 8), b: F32([2], 4, 12) }, 12), /"b" to begin at byte 8.*overlaps/],
    ['equal places', () => written({ a: F32([1], 0, 4), b: F32([1], 0, 4) }, 4), /overlaps/],
    ['holes', () => written({ a: F32([1], 0, 4), b: F32([1], 8, 12) }, 12), /"b" to begin at byte 4.*leaves a hole/],
    ['a hole before the first', () => written({ a: F32([1], 4, 8) }, 8), /leaves a hole/],
    ['bytes after the last', () => written({ a: F32([1], 0, 4) }, 5), /to end with its last tensor/],
    ['an empty tensor in the midst of another', () => written({ a: F32([2], 0, 8), z: F32([0], 4, 4) }, 8), /overlaps/],
    [
      'a name that drives a terminal',
      () => written({ '\u001b[31m\n\u009b2J': F32([1], 4, 8) }, 8),
      /\\u001b\[31m\\n\\u009b2J/,
    ],
  ])('refuses %s', (_what, path, message) => {
    expect(refusal(path())).toMatch(message)
  })

  it('refuses every truncation of a file', () => {
    const whole = readFileSync(fixture('python.safetensors'))
    for (let length = 0; length < whole.length; length += 7) refusal(rawFile(whole.subarray(0, length)))
  })

  it('refuses a missing file, a folder and a pipe', () => {
    expect(() => files.openSafetensors(join(folder, 'none'))).toThrow(/does not exist/)
    expect(() => files.openSafetensors(folder)).toThrow(/is a folder/)
    expect(() => files.openSafetensors('/dev/null')).toThrow(/no regular file/)
  })

  it('reports a file that shrank after it was opened', () => {
    const path = written({ a: F32([4], 0, 16) }, 16)
    const file = files.openSafetensors(path)
    writeFileSync(path, 'gone')
    expect(() => file.tensor('a')).toThrow(WeightsFileError)
  })
})

function rawFile(bytes: Uint8Array): string {
  count += 1
  const path = join(folder, `raw-${count}.safetensors`)
  writeFileSync(path, bytes)
  return path
}

describe('saveSafetensors', () => {
  it('writes the very bytes that Python writes', () => {
    const path = join(folder, 'same.safetensors')
    const python = files.openSafetensors(fixture('python.safetensors'))
    const shuffled = Array.from(python.names).sort((a, b) => (a.length - b.length || a < b ? -1 : 1))
    expect(
      files.saveSafetensors(
        shuffled.map((name) => [name, python.tensor(name)] as const),
        path,
      ),
    ).toEqual([path])
    expect(readFileSync(path)).toEqual(readFileSync(fixture('python.safetensors')))
  })

  it('takes records, Maps and iterables; any name; metadata', () => {
    const path = join(folder, 'names.safetensors')
    const tensors = new Map([
      ['__proto__', fake([1], [1])],
      ['7', fake([2], [1])],
      ['a"\\\n', fake([3], [])],
    ])
    files.saveSafetensors(tensors, path, { metadata: { __proto__: 'x', note: 'y"' } as Record<string, string> })
    const file = files.openSafetensors(path)
    expect(new Set(file.names)).toEqual(new Set(tensors.keys()))
    expect(file.tensor('__proto__').values).toEqual([1])
    expect(file.metadata.get('note')).toBe('y"')
    files.saveSafetensors({ b: fake([1, 2], [2]), a: fake([3], [1]) }, path, { metadata: {} })
    expect(files.openSafetensors(path).names).toEqual(['a', 'b'])
    files.saveSafetensors([], path)
    expect(files.openSafetensors(path).names).toEqual([])
    const size = readFileSync(path).readUInt32LE()
    expect(size % 8).toBe(0)
  })

  it('refuses wrong things, and leaves the file before and nothing else', () => {
    const place = join(folder, 'safe')
    mkdirSync(place)
    const path = join(place, 'kept.safetensors')
    files.saveSafetensors({ a: fake([1], [1]) }, path)
    const before = readFileSync(path)
    const live = liveHandles()
    const save =
      (tensors: Iterable<[string, FakeTensor]>, options = {}) =>
      () =>
        files.saveSafetensors(tensors, path, options)
    const a = fake([1], [1])
    expect(
      save([
        ['a', a],
        ['a', a],
      ]),
    ).toThrow(/"a" is there twice/)
    expect(save([['__metadata__', a]])).toThrow(TypeError)
    expect(save([['\ud800', a]])).toThrow(TypeError)
    expect(save([['c', fake(new Uint8Array(16), [1], 'complex128')]])).toThrow(/"c" is complex128/)
    expect(save([['x', { shape: [] } as unknown as FakeTensor]])).toThrow(/expected "x" to be a tensor/)
    expect(save([['a', a]], { maxShardBytes: 0 })).toThrow(RangeError)
    expect(save([['a', a]], { maxShardBytes: Number.NaN })).toThrow(RangeError)
    expect(save([['a', a]], { metadata: { n: 1 } })).toThrow(TypeError)
    let pieces = 0
    const failing = createFiles({
      ...backend,
      native: {
        ...backend.native,
        copyBytes: () => {
          pieces += 1
          throw new Error('the GPU is gone')
        },
      },
    })
    expect(() => failing.saveSafetensors({ a }, path)).toThrow('the GPU is gone')
    expect(pieces).toBe(1)
    const released = fake([5], [1])
    backend.native.release(released.handle)
    expect(save([['b', released]])).toThrow(/was released/)
    expect(() => files.saveSafetensors({ a }, join(place, 'none', 'x'))).toThrow(/ENOENT/)
    expect(readFileSync(path)).toEqual(before)
    expect(readdirSync(place)).toEqual(['kept.safetensors'])
    // three tensors were made above; what was opened for writing is released again
    expect(liveHandles()).toBe(live + 2)
  })

  it('writes contiguous rows of a view', () => {
    const path = join(folder, 'view.safetensors')
    const base = fake([0, 1, 2, 3, 4, 5], [6])
    const view = backend.wrap(backend.native.tensorFromStorage(base.handle, [3, 2], [1, 3], 0, 'float32'), false)
    files.saveSafetensors({ view }, path)
    expect(files.openSafetensors(path).tensor('view').values).toEqual([0, 3, 1, 4, 2, 5])
  })

  it('replaces a link, not what it points to', () => {
    const target = rawFile(Buffer.from('shared'))
    const link = join(folder, 'link.safetensors')
    symlinkSync(target, link)
    files.saveSafetensors({ a: fake([1], [1]) }, link)
    expect(readFileSync(target, 'utf8')).toBe('shared')
    expect(files.openSafetensors(link).names).toEqual(['a'])
  })

  it('splits what is large, and openSharded puts it together', async () => {
    const place = join(folder, 'sharded')
    mkdirSync(place)
    const path = join(place, 'model.safetensors')
    const tensors = Object.fromEntries(Array.from({ length: 5 }, (_, i) => [`t${i}`, fake([i, i, i], [3])]))
    files.saveSafetensors(tensors, path)
    const names = files.saveSafetensors({ ...tensors, huge: fake([...Array(40).keys()], [40]) }, path, {
      maxShardBytes: 30,
    })
    expect(readdirSync(place).sort()).toEqual([
      'model-00001-of-00004.safetensors',
      'model-00002-of-00004.safetensors',
      'model-00003-of-00004.safetensors',
      'model-00004-of-00004.safetensors',
      'model.safetensors.index.json',
    ])
    expect(names).toHaveLength(5)
    const index = JSON.parse(readFileSync(join(place, 'model.safetensors.index.json'), 'utf8'))
    expect(index.metadata.total_size).toBe(5 * 12 + 160)
    expect(index.weight_map.t2).toBe('model-00002-of-00004.safetensors')
    for (const from of [place, join(place, 'model.safetensors.index.json')]) {
      const file = files.openSharded(from)
      expect(file.names).toEqual(['t0', 't1', 't2', 't3', 't4', 'huge'])
      expect(file.tensor('t3').values).toEqual([3, 3, 3])
      expect(file.info('huge').shape).toEqual([40])
      expect(() => file.tensor('x')).toThrow(/expected a tensor "x"/)
    }
    const inspected = await inspect(place)
    expect(inspected).toMatchObject({ format: 'safetensors-sharded', bytes: 220 })
    expect(inspected.tensors[2]).toEqual({
      name: 't2',
      dtype: 'float32',
      shape: [3],
      bytes: 12,
      file: 'model-00002-of-00004.safetensors',
    })
    // a single file again is what a folder is read as
    files.saveSafetensors({ only: fake([1], [1]) }, path)
    expect(files.openSharded(place).names).toEqual(['only'])
  })
})

describe('openSharded refuses', () => {
  const place = (index: unknown, shards: Record<string, Record<string, FakeTensor>> = {}): string => {
    count += 1
    const path = join(folder, `shards-${count}`)
    mkdirSync(path)
    writeFileSync(join(path, 'model.safetensors.index.json'), typeof index === 'string' ? index : JSON.stringify(index))
    for (const [name, tensors] of Object.entries(shards)) files.saveSafetensors(tensors, join(path, name))
    return path
  }

  it.each([
    ['../x.safetensors'],
    ['/etc/passwd'],
    ['a/b.safetensors'],
    ['a\\b.safetensors'],
    ['C:x'],
    ['..'],
    ['.'],
    [''],
    ['x\0y'],
  ])('shards elsewhere: %j', (shard) => {
    expect(() => files.openSharded(place({ weight_map: { a: shard } }))).toThrow(/in a file beside the index/)
  })

  it('missing shards, all of them named', () => {
    const path = place(
      { weight_map: { a: '1.safetensors', b: '2.safetensors', c: '3.safetensors' } },
      { '2.safetensors': {} },
    )
    expect(() => files.openSharded(path)).toThrow(/2 are missing: "1.safetensors", "3.safetensors"/)
  })

  it('a tensor that is not in its shard', () => {
    const path = place(
      { weight_map: { a: '1.safetensors', b: '1.safetensors' } },
      { '1.safetensors': { a: fake([1], [1]) } },
    )
    expect(() => files.openSharded(path)).toThrow(/1 tensors are not in theirs: "b" \("1.safetensors"\)/)
  })

  it('an index that is none', () => {
    expect(() => files.openSharded(place('{"weight_map":{"a":"1","a":"2"}}'))).toThrow(/"a" is there twice/)
    expect(() => files.openSharded(place('{}'))).toThrow(/has none/)
    expect(() => files.openSharded(place('nonsense'))).toThrow(WeightsFileError)
    expect(() => files.openSharded(place('{"metadata":{"total_size":1'))).toThrow(WeightsFileError)
    expect(() => files.openSharded(join(folder, 'no-such-folder'))).toThrow(/does not exist/)
    mkdirSync(join(folder, 'empty'))
    expect(() => files.openSharded(join(folder, 'empty'))).toThrow(/has neither/)
    expect(() => files.openSharded(fixture('objects.pt'))).toThrow(/use openSafetensors/)
    expect(existsSync(join(folder, 'empty'))).toBe(true)
  })
})
