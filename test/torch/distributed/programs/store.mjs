// Two ranks and their store. Prints what came, as JSON.
import { setTimeout as sleep } from 'node:timers/promises'
import { PrefixStore, readLaunchEnvironment, TCPStore } from '../../../../dist/torch/distributed/index.js'

const { rank, masterAddress: host, masterPort: port } = readLaunchEnvironment()
const tcp = await TCPStore.open({ host, port, isServer: rank === 0, timeout: 10_000 })
const store = new PrefixStore('mine', tcp)
const found = { port: tcp.port === port }
if (rank === 0) {
  // waits first: the other sets it later, and this connection is of use meanwhile
  const waiting = store.getText('late')
  store.set('early', new Uint8Array([0, 255, 7]))
  found.late = await waiting
} else {
  found.early = [...(await store.get('early'))]
  await sleep(50)
  store.set('late', 'grüße')
}
store.add('count', rank + 1)
store.set(`done/${rank}`, '')
await store.wait(['done/0', 'done/1'])
found.count = store.add('count', 0)
if (rank === 0) {
  const text = (bytes) => new TextDecoder().decode(bytes)
  found.compareSet = [
    text(store.compareSet('word', '', 'a')),
    text(store.compareSet('word', 'b', 'c')),
    text(store.compareSet('word', 'a', 'd')),
  ]
  found.prefixed = [tcp.check(['mine/word']), store.check(['word']), store.check(['word', 'none'])]
  found.deleted = [store.delete('word'), store.delete('word'), store.check(['word'])]
  found.timeout = await store.get('never', { timeout: 100 }).catch((error) => `${error.name}: ${error.message}`)
  found.keys = tcp.numKeys() > 3
  found.wrong = await TCPStore.open({ host, port, isServer: true, timeout: 500 }).catch((error) => error.name)
}
store.set(`end/${rank}`, '')
await store.wait(['end/0', 'end/1'])
if (rank === 0) await sleep(100)
console.log(JSON.stringify(found))
