import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32, deflateRawSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { OutputFile } from '../../../src/torch/files/file.js'
import {
  createFiles,
  inspect,
  type LoadedObject,
  PickleStub,
  WeightsFileError,
} from '../../../src/torch/files/index.js'
import { ZipWriter } from '../../../src/torch/files/zip.js'
import { float } from '../../../src/torch/types.js'
import { backend, calls, FakeTensor, fake, files, fixture, liveHandles, temporaryFolder } from './fake.js'

const folder = temporaryFolder()
let count = 0

type Loaded = LoadedObject<FakeTensor>
type Dict = Map<Loaded, Loaded>

const dict = (value: Loaded | undefined): Dict => {
  if (!(value instanceof Map)) throw new Error('expected a Map')
  return value
}

const tensor = (value: Loaded | undefined): FakeTensor => {
  if (!(value instanceof FakeTensor)) throw new Error('expected a tensor')
  return value
}

function place(bytes: Uint8Array, name = 'pt'): string {
  count += 1
  const path = join(folder, `case-${count}.${name}`)
  writeFileSync(path, bytes)
  return path
}

/** Loads, expects a refusal in one line, and that no tensor is left; inspect() may refuse it or not. */
async function refusal(path: string): Promise<string> {
  const live = liveHandles()
  const caught = (thrown: unknown): string => {
    expect(thrown).toBeInstanceOf(WeightsFileError)
    const { message } = thrown as WeightsFileError
    expect(message).not.toMatch(/\p{Cc}/u)
    expect(message).toContain(path)
    return message
  }
  await inspect(path).catch(caught)
  const message = await files.load(path).then(() => 'it was not refused', caught)
  expect(liveHandles()).toBe(live)
  return message
}

describe.each(['objects.pt', 'objects-legacy.pt', 'objects-protocol5.pt', 'objects-deflated.pt'])('load %s', (name) => {
  it('gives the object that Python saved', async () => {
    const root = dict(await files.load(fixture(name)))
    const state = dict(root.get('state_dict'))
    const values = (key: string) => tensor(state.get(key)).values
    expect(values('weight')).toEqual([0, 1, 2, 3, 4, 5])
    expect(tensor(state.get('weight')).requiresGrad).toBe(true)
    expect(tensor(state.get('frozen')).requiresGrad).toBe(false)
    expect(tensor(state.get('transposed')).shape).toEqual([4, 3])
    expect(values('transposed')).toEqual([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
    expect(values('slice')).toEqual([3, 5, 7])
    expect(values('scalar')).toEqual([2.5])
    expect(tensor(state.get('scalar')).shape).toEqual([])
    expect(tensor(state.get('empty')).shape).toEqual([0, 3])
    expect(values('expanded')).toEqual([7, 7, 7, 7])
    expect(values('half')).toEqual([1.5, -2])
    expect(values('bf16')).toEqual([1.5, -2])
    expect(values('complex')).toEqual([1, 2, -0, -3])
    // shared memory stays shared
    expect(tensor(state.get('tied.a')).view.storage).toBe(tensor(state.get('tied.b')).view.storage)
    expect(tensor(state.get('slice')).view.storage).toBe(tensor(state.get('transposed')).view.storage)

    expect(root.get('epoch')).toBe(3)
    expect(root.get('loss')).toBe(0.25)
    expect(root.get('big')).toBe(2n ** 80n)
    expect(root.get('negative')).toBe(-(2 ** 40))
    expect(root.get('done')).toBe(true)
    expect(root.get('nothing')).toBeNull()
    expect(root.get('text')).toBe('é😀')
    expect(root.get('bytes')).toEqual(Uint8Array.of(0, 255))
    expect(root.get('list')).toEqual([1, [2.5, 'x'], [], new Map()])
    expect(dict(root.get('numbers')).get(-1)).toBe('minus one')
    expect(root.get('default')).toEqual(new Map([['a', 1]]))
    expect(root.get('set')).toEqual(new Set([1, 2]))
    expect(root.get('complexNumber')).toEqual({ re: 1, im: -2 })
    expect(root.get('dtype')).toBe('bfloat16')
    expect(root.get('device')).toBe('cuda:1')
    expect(root.get('size')).toEqual([2, 3])
    const numpy = dict(root.get('numpy'))
    expect([numpy.get('float'), numpy.get('int'), numpy.get('bool')]).toEqual([0.5, -7, true])
    expect(tensor(numpy.get('array')).values).toEqual([0, 1, 2, 3, 4, 5])
    expect(tensor(numpy.get('fortran')).values.map(Number)).toEqual([0, 1, 2, 3, 4, 5])
    expect(numpy.get('words')).toBeInstanceOf(PickleStub)
    expect(root.get('path')).toMatchObject({ module: expect.stringMatching(/^pathlib/), args: ['somewhere'] })
  })

  it('gives a state dict where it is asked for', async () => {
    const loaded = await files.load(fixture(name))
    const state = files.toStateDict(loaded, { key: ['model', 'state_dict'] })
    expect(Array.from(state.keys()).slice(0, 5)).toEqual(['weight', 'frozen', 'transposed', 'slice', 'tied.a'])
    expect(state.size).toBe(12)
    expect(files.toStateDict(loaded).has('state_dict.weight')).toBe(true)
    expect(() => files.toStateDict(loaded, { key: 'model' })).toThrow(
      /expected a key 'model', but .* "state_dict", "epoch"/,
    )
    expect(() => files.toStateDict(loaded, { key: 'text' })).toThrow(/there is none/)
  })

  it('is inspected without a tensor', async () => {
    calls.length = 0
    const { tensors, format, bytes } = await inspect(fixture(name))
    expect(calls).toEqual([])
    expect(format).toBe(name.includes('legacy') ? 'torch-legacy' : 'torch-zip')
    expect(tensors.slice(0, 3)).toEqual([
      { name: 'state_dict.weight', dtype: 'float32', shape: [2, 3], bytes: 24 },
      { name: 'state_dict.frozen', dtype: 'float32', shape: [2], bytes: 8 },
      { name: 'state_dict.transposed', dtype: 'float32', shape: [4, 3], bytes: 48 },
    ])
    expect(bytes).toBe(tensors.reduce((sum, entry) => sum + entry.bytes, 0))
  })
})

describe('load', () => {
  it.each(['dtypes.pt', 'dtypes-legacy.pt'])('reads every dtype of %s', async (name) => {
    const state = files.toStateDict(await files.load(fixture(name)))
    expect(state.size).toBe(name === 'dtypes.pt' ? 17 : 12)
    for (const [dtype, value] of state) {
      expect(value.dtype).toBe(dtype)
      const expected =
        dtype === 'bool' ? [0, 1, 1, 1] : dtype.startsWith('complex') ? [0, 0, 1, 0, 2, 0, 3, 0] : [0, 1, 2, 3]
      expect(value.values.map(Number), dtype).toEqual(expected)
    }
  })

  it('maps what is aligned, and leaves nothing but the tensors', async () => {
    const live = liveHandles()
    calls.length = 0
    const state = files.toStateDict(await files.load(fixture('dtypes.pt')))
    expect(calls.filter((call) => call === 'mapFile')).toHaveLength(1)
    expect(calls).not.toContain('copied')
    expect(liveHandles()).toBe(live + state.size)
  })

  it('runs nothing', async () => {
    const marker = '/tmp/cleft-pickle-was-run'
    rmSync(marker, { force: true })
    const root = dict(await files.load(fixture('evil.pt')))
    expect(root.get('evil')).toMatchObject({ module: 'posix', name: 'system', args: [`touch ${marker}`] })
    expect(tensor(root.get('weight')).values).toEqual([1, 1])
    expect(existsSync(marker)).toBe(false)
  })

  it('takes a pickled module for its state dict', async () => {
    const loaded = await files.load(fixture('module.pt'))
    expect(loaded).toMatchObject({ module: 'somebody.models', name: 'Net' })
    const state = files.toStateDict(loaded)
    expect(new Set(state.keys())).toEqual(new Set(['inner.weight', 'inner.bias', 'count']))
    expect(state.get('inner.weight')?.requiresGrad).toBe(true)
  })

  it('takes views in the persistent ids of old files', async () => {
    expect(files.toStateDict(await files.load(fixture('views-legacy.pt'))).get('view')?.values).toEqual([3, 4])
  })

  it('frees what it made where native code fails', async () => {
    const live = liveHandles()
    let made = 0
    const failing = createFiles({
      ...backend,
      native: {
        ...backend.native,
        tensorFromStorage: (...args) => {
          made += 1
          if (made === 3) throw new Error('out of\nmemory')
          return backend.native.tensorFromStorage(...args)
        },
      },
    })
    await expect(failing.load(fixture('objects.pt'))).rejects.toThrow(/that failed: out of memory/)
    expect(liveHandles()).toBe(live)
  })
})

describe('load refuses', () => {
  it.each<[string, () => string, RegExp]>([
    ['TorchScript', () => fixture('torchscript.pt'), /TorchScript archive; use torch.jit.load/],
    ['conjugate views', () => fixture('conj.pt'), /conjugate or negative view/],
    ['an empty file', () => place(Buffer.alloc(0)), /0 bytes long/],
    ['text', () => place(Buffer.from('this is not a checkpoint at all')), /neither its zip archive nor its older form/],
    ['a pickle', () => place(readFileSync(fixture('plain-2.pkl'))), /if it is a plain pickle/],
    ['a web page', () => place(Buffer.from('<!DOCTYPE html><html>not found</html>')), /a web page/],
    [
      'a pointer of LFS',
      () => place(Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0')),
      /git lfs pull/,
    ],
    [
      'a tar file',
      () => place(Buffer.concat([Buffer.alloc(257, 'sys_info\0'), Buffer.from('ustar  '), Buffer.alloc(248)])),
      /tar file, the form from before/,
    ],
    ['HDF5', () => place(Buffer.concat([Buffer.from('\x89HDF\r\n\x1a\n', 'latin1'), Buffer.alloc(100)])), /HDF5/],
    ['a folder', () => folder, /is a folder/],
  ])('%s', async (_what, path, message) => {
    if (path() === folder) await expect(files.load(folder)).rejects.toThrow(message)
    else expect(await refusal(path())).toMatch(message)
  })

  it('safetensors, which inspect() takes by their look', async () => {
    const path = place(readFileSync(fixture('python.safetensors')), 'bin')
    await expect(files.load(path)).rejects.toThrow(/use openSafetensors/)
    expect((await inspect(path)).format).toBe('safetensors')
  })

  it.each(['objects.pt', 'objects-legacy.pt', 'objects-deflated.pt'])('every truncation of %s', async (name) => {
    const whole = readFileSync(fixture(name))
    for (let length = 0; length < whole.length; length += 61) await refusal(place(whole.subarray(0, length)))
  })

  it.each(['objects.pt', 'objects-legacy.pt', 'objects-deflated.pt'])(
    'or reads whatever becomes of %s',
    async (name) => {
      let state = 999
      const random = () => {
        state = (Math.imul(state, 1103515245) + 12345) >>> 0
        return state >>> 16
      }
      const whole = readFileSync(fixture(name))
      for (let round = 0; round < 400; round += 1) {
        const bytes = Buffer.from(whole)
        for (let i = 0; i <= random() % 6; i += 1) bytes[random() % bytes.length] = random() & 255
        const path = join(folder, 'fuzz.pt')
        writeFileSync(path, bytes)
        for (const read of [files.load, inspect]) {
          try {
            await read(path)
          } catch (thrown) {
            if (!(thrown instanceof WeightsFileError)) throw thrown
          }
        }
      }
    },
  )
})

/** A zip with these entries; `change` damages its bytes. */
function zip(entries: Record<string, Uint8Array | string>, change?: (bytes: Buffer) => void): string {
  count += 1
  const path = join(folder, `zip-${count}.pt`)
  const file = new OutputFile(path)
  const writer = new ZipWriter(file)
  for (const [name, bytes] of Object.entries(entries)) writer.addBytes(name, Buffer.from(bytes as string, 'latin1'))
  writer.end()
  file.commit()
  if (change !== undefined) {
    const bytes = readFileSync(path)
    change(bytes)
    writeFileSync(path, bytes)
  }
  return path
}

/** The pickle of one tensor: float32 over storage 0 of `numel` elements. */
function tensorPickle(
  shape: string,
  strides: string,
  offset = 'K\x00',
  numel = 'K\x04',
  key = '0',
  type = 'torch\nFloatStorage',
): string {
  const id = `(X\x07\x00\x00\x00storagec${type}\nX${String.fromCharCode(key.length)}\x00\x00\x00${key}X\x03\x00\x00\x00cpu${numel}tQ`
  return `\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(${id}${offset}${shape}${strides}\x89ccollections\nOrderedDict\n)RtR.`
}

const four = Buffer.alloc(16)
const checkpoint = (pickle: string, more: Record<string, Uint8Array | string> = {}) =>
  zip({ 'a/data.pkl': pickle, 'a/data/0': four, 'a/version': '3\n', ...more })
const HUGE = '\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f'
const BIG = '\x8a\x07\xff\xff\xff\xff\xff\xff\x1f'

describe('a hostile archive', () => {
  it('is read where it is not hostile after all', async () => {
    const path = checkpoint(tensorPickle('K\x02K\x02\x86', 'K\x02K\x01\x86'))
    expect(tensor(await files.load(path)).shape).toEqual([2, 2])
    // a zip of other tools: no version, another name, folders
    expect(await files.load(zip({ 'x/': '', 'x/data.pkl': 'K\x01.', 'y/other': '1' }))).toBe(1)
  })

  it.each<[string, () => string, RegExp]>([
    [
      'a storage shorter than its size',
      () => checkpoint(tensorPickle('K\x04\x85', 'K\x01\x85', 'K\x00', 'K\x05')),
      /20 bytes of storage "0", but there are 16/,
    ],
    [
      'a size beyond 2^53',
      () => checkpoint(tensorPickle('K\x04\x85', 'K\x01\x85', 'K\x00', HUGE)),
      /size of storage "0" to be an integer/,
    ],
    [
      'a size just below 2^53',
      () => checkpoint(tensorPickle('K\x04\x85', 'K\x01\x85', 'K\x00', BIG)),
      /but there are 16/,
    ],
    [
      'a negative size',
      () => checkpoint(tensorPickle('K\x04\x85', 'K\x01\x85', 'K\x00', 'J\xff\xff\xff\xff')),
      /size of storage/,
    ],
    ['a shape beyond the storage', () => checkpoint(tensorPickle('K\x05\x85', 'K\x01\x85')), /reach to byte 20/],
    ['a stride beyond the storage', () => checkpoint(tensorPickle('K\x02\x85', 'K\x04\x85')), /reach to byte 20/],
    ['a stride near 2^53', () => checkpoint(tensorPickle('K\x02\x85', `${BIG}\x85`)), /reach to byte/],
    ['a stride of 2^63', () => checkpoint(tensorPickle('K\x02\x85', `${HUGE}\x85`)), /sizes and strides/],
    [
      'a negative stride',
      () => checkpoint(tensorPickle('K\x02\x85', 'J\xff\xff\xff\xff\x85', 'K\x03')),
      /sizes and strides/,
    ],
    [
      'a negative size of a dimension',
      () => checkpoint(tensorPickle('J\xff\xff\xff\xff\x85', 'K\x01\x85')),
      /sizes and strides/,
    ],
    [
      'an offset beyond the storage',
      () => checkpoint(tensorPickle('K\x01\x85', 'K\x01\x85', 'K\x04')),
      /offset 4.*reach to byte 20/,
    ],
    [
      'a negative offset',
      () => checkpoint(tensorPickle('K\x01\x85', 'K\x01\x85', 'J\xff\xff\xff\xff')),
      /offset of a tensor/,
    ],
    [
      'an offset that is no integer',
      () => checkpoint(tensorPickle('K\x01\x85', 'K\x01\x85', 'G?\xe0\x00\x00\x00\x00\x00\x00')),
      /offset of a tensor/,
    ],
    ['more strides than sizes', () => checkpoint(tensorPickle('K\x01\x85', 'K\x01K\x01\x86')), /sizes and strides/],
    [
      'terabytes from four numbers',
      () => checkpoint(tensorPickle('J\x00\x00\x00\x40\x85', 'K\x00\x85')),
      /repeats its storage to 4294967296/,
    ],
    [
      'sizes that overflow',
      () => checkpoint(tensorPickle(`${BIG}${BIG}\x86`, 'K\x00K\x00\x86')),
      /below 2\^53 elements/,
    ],
    [
      'a storage that is not there',
      () => checkpoint(tensorPickle('K\x01\x85', 'K\x01\x85', 'K\x00', 'K\x04', '7')),
      /data\/7 for a storage/,
    ],
    [
      'a storage elsewhere',
      () => checkpoint(tensorPickle('K\x01\x85', 'K\x01\x85', 'K\x00', 'K\x04', '../../x')),
      /but there is none/,
    ],
    [
      'a storage of another class',
      () => checkpoint(tensorPickle('K\x01\x85', 'K\x01\x85', 'K\x00', 'K\x04', '0', 'torch\nQInt8Storage')),
      /known class/,
    ],
    ['a big-endian machine', () => checkpoint('N.', { 'a/byteorder': 'big' }), /little-endian checkpoint/],
    ['a byte order that is long', () => checkpoint('N.', { 'a/byteorder': 'x'.repeat(1000) }), /64 bytes at most/],
    ['a version to come', () => checkpoint('N.', { 'a/version': '11' }), /version 1 to 10/],
    ['a version that is none', () => checkpoint('N.', { 'a/version': '-1\n' }), /version 1 to 10/],
    ['no pickle', () => zip({ 'a/data/0': four }), /one data.pkl in the archive, but there are 0/],
    ['two pickles', () => zip({ 'a/data.pkl': 'N.', 'b/data.pkl': 'N.' }), /but there are 2/],
    [
      'an empty archive',
      () => place(Buffer.concat([Buffer.from('PK\x05\x06'), Buffer.alloc(18)])),
      /neither its zip archive/,
    ],
    ['names that lead elsewhere', () => zip({ 'a/data.pkl': 'N.', '../../etc/x': 'y' }), /invalid relative path/],
    ['absolute names', () => zip({ 'a/data.pkl': 'N.', '/etc/x': 'y' }), /absolute path/],
    [
      'an entry twice',
      () => zip({ 'a/data.pkl': 'N.', 'a/data.pkk': 'N.' }, (b) => replaceAll(b, 'data.pkk', 'data.pkl')),
      /"a\/data.pkl" is there twice/,
    ],
    [
      'a header of another name',
      () => zip({ 'a/data.pkl': 'N.' }, (b) => void b.write('b', 30)),
      /header of "a\/data.pkl" is not what/,
    ],
    [
      'a header of another size',
      () => zip({ 'a/data.pkl': 'N.' }, (b) => void b.writeUInt32LE(3, 18)),
      /header of "a\/data.pkl" says 3 bytes/,
    ],
    [
      'sizes beyond the file',
      () =>
        zip({ 'a/data.pkl': 'N.' }, (b) => {
          const at = b.lastIndexOf('PK\x01\x02', undefined, 'latin1')
          b.writeUInt32LE(9999, at + 20)
          b.writeUInt32LE(9999, at + 24)
        }),
      /overflows file bounds/,
    ],
    [
      'sizes of 4 GiB',
      () =>
        zip({ 'a/data.pkl': 'N.' }, (b) => {
          const at = b.lastIndexOf('PK\x01\x02', undefined, 'latin1')
          b.writeUInt32LE(0xfffffffe, at + 20)
          b.writeUInt32LE(0xfffffffe, at + 24)
        }),
      /overflows file bounds/,
    ],
    [
      'a directory beyond the file',
      () => zip({ 'a/data.pkl': 'N.' }, (b) => void b.writeUInt32LE(0xfffffff0, b.length - 6)),
      /points to byte/,
    ],
    [
      'encryption',
      () =>
        zip(
          { 'a/data.pkl': 'N.' },
          (b) => void b.writeUInt16LE(1, b.lastIndexOf('PK\x01\x02', undefined, 'latin1') + 8),
        ),
      /encrypted|mismatch/,
    ],
    [
      'an unknown compression',
      () =>
        zip(
          { 'a/data.pkl': 'N.' },
          (b) => void b.writeUInt16LE(99, b.lastIndexOf('PK\x01\x02', undefined, 'latin1') + 10),
        ),
      /unknown method 99/,
    ],
    ['overlapping entries', () => overlapping(), /overlaps the entry before it/],
    [
      'a million entries',
      () =>
        zip({ 'a/data.pkl': 'N.' }, (b) => {
          b.writeUInt16LE(0xfffe, b.length - 12)
        }),
      /zip archive that is whole|one data.pkl/,
    ],
    ['zip64 places beyond 2^53', () => zip64Places(), /points to byte/],
    ['a bomb that says what it is', () => bomb('a/data.pkl', 2 ** 30, 2 ** 30), /bytes at most|inflate to a few times/],
    ['a bomb that lies', () => bomb('a/data.pkl', 64 << 20, 1000), /inflate to its 1000 bytes, but it does not/],
    ['a bomb that says too much for its bytes', () => bomb('a/data.pkl', 1000, 1 << 20), /bytes become 1048576/],
    ['a pickle that is shorter than it says', () => bomb('a/data.pkl', 1000, 1001), /inflate to its 1001 bytes/],
  ])('%s', async (_what, path, message) => {
    expect(await refusal(path())).toMatch(message)
  })

  it('of deflated tensors is refused before it is inflated', async () => {
    const storages = Array.from({ length: 6 }, (_, i) => deflatedEntry(`a/data/${i}`, Buffer.alloc(64 << 20)))
    const one = tensorPickle('K\x01\x85', 'K\x01\x85').slice(2, -1)
    const all = Array.from({ length: 6 }, (_, i) => one.replace('\x00\x00\x000X', `\x00\x00\x00${i}X`)).join('')
    const path = archive([deflatedEntry('a/data.pkl', Buffer.from(`\x80\x02(${all}l.`, 'latin1')), ...storages])
    expect(await refusal(path)).toMatch(/inflate to a few times the file/)
  })

  it('of shared lists without end is read, and refused where paths are asked for', async () => {
    let text = `\x80\x02${tensorPickle('K\x01\x85', 'K\x01\x85').slice(2, -1)}\x85q\x00`
    for (let i = 0; i < 100; i += 1) text += `(${`h${String.fromCharCode(i)}`.repeat(8)}tq${String.fromCharCode(i + 1)}`
    const path = checkpoint(`${text}.`)
    expect(await files.load(path)).toHaveLength(8)
    await expect(inspect(path)).rejects.toThrow(WeightsFileError)
  })

  it('of deep lists is read, and refused where paths are asked for', async () => {
    const path = checkpoint(`${']'.repeat(100_000)}${'a'.repeat(99_999)}.`)
    expect(await files.load(path)).toHaveLength(1)
    await expect(inspect(path)).rejects.toThrow(/256 deep/)
  })

  it('of objects inside themselves is read', async () => {
    const path = checkpoint(`\x80\x02]q\x00(h\x00${tensorPickle('K\x01\x85', 'K\x01\x85').slice(2, -1)}e.`)
    const list = (await files.load(path)) as Loaded[]
    expect(list[0]).toBe(list)
    expect(list[1]).toBeInstanceOf(FakeTensor)
    expect((await inspect(path)).tensors.map(({ name }) => name)).toEqual(['1'])
  })

  it('puts tensors in sets, keys and stubs too', async () => {
    const one = tensorPickle('K\x01\x85', 'K\x01\x85').slice(2, -1)
    const path = checkpoint(`\x80\x02(\x8f(${one}\x90}${one}K\x01sca\nb\n${one}\x85R${one}bl.`)
    const [set, map, stub] = (await files.load(path)) as [Set<Loaded>, Dict, PickleStub]
    expect(Array.from(set)[0]).toBeInstanceOf(FakeTensor)
    expect(Array.from(map.keys())[0]).toBeInstanceOf(FakeTensor)
    expect(stub.args?.[0]).toBeInstanceOf(FakeTensor)
    expect(stub.state).toBeInstanceOf(FakeTensor)
  })

  it('may be compressed, and then its tensors are copied', async () => {
    const pickle = Buffer.from(tensorPickle('K\x04\x85', 'K\x01\x85'), 'latin1')
    const path = archive([
      deflatedEntry('a/data.pkl', pickle),
      deflatedEntry('a/data/0', Buffer.from(Float32Array.of(1, 2, 3, 4).buffer)),
    ])
    expect(tensor(await files.load(path)).values).toEqual([1, 2, 3, 4])
  })
})

function replaceAll(bytes: Buffer, from: string, to: string): void {
  for (let at = bytes.indexOf(from); at >= 0; at = bytes.indexOf(from)) bytes.write(to, at)
}

interface RawEntry {
  name: string
  stored: Buffer
  size: number
  crc: number
}

function deflatedEntry(name: string, content: Buffer): RawEntry {
  return { name, stored: deflateRawSync(content), size: content.length, crc: crc32(content) }
}

/** An archive of deflated entries, by hand. */
function archive(entries: RawEntry[]): string {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { name, stored, size, crc } of entries) {
    const local = Buffer.alloc(30 + name.length)
    local.writeUInt32LE(0x04034b50, 0)
    local.writeUInt16LE(8, 8)
    local.writeUInt32LE(crc, 14)
    local.writeUInt32LE(stored.length, 18)
    local.writeUInt32LE(size, 22)
    local.writeUInt16LE(name.length, 26)
    local.write(name, 30)
    const central = Buffer.alloc(46 + name.length)
    central.writeUInt32LE(0x02014b50, 0)
    central.writeUInt16LE(8, 10)
    central.writeUInt32LE(crc, 16)
    central.writeUInt32LE(stored.length, 20)
    central.writeUInt32LE(size, 24)
    central.writeUInt16LE(name.length, 28)
    central.writeUInt32LE(offset, 42)
    central.write(name, 46)
    parts.push(local, stored)
    directory.push(central)
    offset += local.length + stored.length
  }
  const end = Buffer.alloc(22)
  end.writeUInt32LE(0x06054b50, 0)
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(
    directory.reduce((sum, record) => sum + record.length, 0),
    12,
  )
  end.writeUInt32LE(offset, 16)
  return place(Buffer.concat([...parts, ...directory, end]))
}

/** An entry of so many zeros that says it has `size` of them. */
function bomb(name: string, zeros: number, size: number): string {
  const piece = deflateRawSync(Buffer.alloc(Math.min(zeros, 64 << 20)), { finishFlush: 2 })
  const stored =
    zeros <= 64 << 20 ? deflateRawSync(Buffer.alloc(zeros)) : Buffer.concat(Array(zeros / (64 << 20)).fill(piece))
  return archive([{ name, stored, size, crc: 0 }])
}

function overlapping(): string {
  const whole = readFileSync(zip({ 'a/data.pkl': 'N.', 'a/x': 'longer than that, so that there is room' }))
  const at = whole.lastIndexOf(Buffer.from('PK\x01\x02', 'latin1'))
  // the second entry begins inside the first one's data: its own header is put there
  const header = whole.subarray(whole.lastIndexOf(Buffer.from('PK\x03\x04', 'latin1')), at)
  const first = whole.indexOf(Buffer.from('PK\x01\x02', 'latin1'))
  const bytes = Buffer.from(whole)
  const length = 30
  bytes.writeUInt32LE(header.length + length, first + 20)
  bytes.writeUInt32LE(header.length + length, first + 24)
  bytes.writeUInt32LE(header.length + length, 18)
  bytes.writeUInt32LE(header.length + length, 22)
  return place(bytes)
}

function zip64Places(): string {
  const bytes = readFileSync(zip({ 'a/data.pkl': 'N.' }))
  const end = bytes.subarray(bytes.length - 22)
  const locator = Buffer.alloc(20)
  locator.writeUInt32LE(0x07064b50, 0)
  locator.writeBigUInt64LE(2n ** 64n - 1n, 8)
  return place(Buffer.concat([bytes.subarray(0, -22), locator, end]))
}

describe('save', () => {
  it('writes what load reads', async () => {
    const path = join(folder, 'saved.pt')
    const weight = fake([0, 1, 2, 3, 4, 5], [2, 3])
    const twin = backend.wrap(backend.native.tensorFromStorage(weight.handle, [2, 3], null, 0, 'float32'), true)
    const view = backend.wrap(backend.native.tensorFromStorage(weight.handle, [3, 2], [1, 3], 0, 'float32'), false)
    const shared = [1, 2]
    const self: unknown[] = []
    self.push(self)
    files.save(
      {
        weight,
        twin,
        same: weight,
        view,
        scalar: fake([2.5], []),
        empty: fake([], [0, 3]),
        u16: fake(Uint8Array.of(1, 0, 2, 0), [2], 'uint16'),
        f8: fake(Uint8Array.of(0x38), [1], 'float8_e4m3fn'),
        complex: fake(new Uint8Array(16), [1], 'complex128'),
        numbers: [0, -1, 2 ** 31, -(2 ** 31) - 1, 2 ** 53, 0.5, -0, 2n ** 70n, -(2n ** 63n), Number.NaN, float(2)],
        words: ['', 'é😀', '__proto__'],
        flags: [true, false, null],
        bytes: Uint8Array.of(0, 200, 255),
        map: new Map<string | number, unknown>([
          [1, 'one'],
          ['two', shared],
        ]) as never,
        shared,
        self: self as never,
        nothing: {},
      },
      path,
    )
    const root = dict(await files.load(path))
    const state = files.toStateDict(root)
    expect(tensor(root.get('weight')).values).toEqual([0, 1, 2, 3, 4, 5])
    expect(tensor(root.get('twin')).view.storage).toBe(tensor(root.get('weight')).view.storage)
    expect(root.get('same')).toBe(root.get('weight'))
    expect(tensor(root.get('view')).values).toEqual([0, 3, 1, 4, 2, 5])
    expect(tensor(root.get('scalar')).shape).toEqual([])
    expect(tensor(root.get('empty')).shape).toEqual([0, 3])
    expect(tensor(root.get('u16')).values).toEqual([1, 2])
    expect(tensor(root.get('f8')).values).toEqual([1])
    expect(tensor(root.get('complex')).dtype).toBe('complex128')
    expect(state.size).toBe(9)
    expect(root.get('numbers')).toEqual(
      [0, -1, 2 ** 31, -(2 ** 31) - 1, 2 ** 53, 0.5, -0, 2n ** 70n, -(2 ** 63), Number.NaN, 2].map((n, i) =>
        i === 4 ? 2 ** 53 : i === 8 ? -(2n ** 63n) : n,
      ),
    )
    expect(root.get('words')).toEqual(['', 'é😀', '__proto__'])
    expect(root.get('flags')).toEqual([true, false, null])
    expect(root.get('bytes')).toEqual(Uint8Array.of(0, 200, 255))
    expect(dict(root.get('map')).get(1)).toBe('one')
    expect(dict(root.get('map')).get('two')).toBe(root.get('shared'))
    expect((root.get('self') as Loaded[])[0]).toBe(root.get('self'))
    expect(root.get('nothing')).toEqual(new Map())
    calls.length = 0
    await files.load(path)
    expect(calls.filter((call) => call === 'copied')).toHaveLength(1)
    // equal content, equal bytes
    files.save({ weight }, join(folder, 'one.pt'))
    files.save({ weight }, join(folder, 'two.pt'))
    expect(readFileSync(join(folder, 'one.pt'))).toEqual(readFileSync(join(folder, 'two.pt')))
  })

  it('refuses what Python would not read, and says where it is', () => {
    const path = join(folder, 'refused.pt')
    const save = (value: unknown) => () => files.save(value as never, path)
    expect(save({ a: [1, () => 1] })).toThrow(/expected object\.a\[1\] to be .* but it is function/)
    expect(save({ a: undefined })).toThrow(/object\.a .* undefined/)
    expect(save(new Array(2))).toThrow(/object\[0\]/)
    expect(save({ d: new Date() })).toThrow(/it is Date/)
    expect(save({ s: new Set() })).toThrow(/it is Set/)
    expect(save({ f: new Float32Array(2) })).toThrow(/it is Float32Array/)
    expect(save(new Map([[{}, 1]]))).toThrow(/keys of object/)
    let deep: unknown = 1
    for (let i = 0; i < 1000; i += 1) deep = [deep]
    expect(save(deep)).toThrow(/256 deep/)
    expect(existsSync(path)).toBe(false)
  })
})
