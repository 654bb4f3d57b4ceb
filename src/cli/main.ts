#!/usr/bin/env node
import yargs from 'yargs'
import { hideBin } from 'yargs/helpers'
import { exitOnSignals } from '../setup/exit.js'
import { packageVersion } from '../setup/install.js'
import { packageRoot } from '../setup/paths.js'
import * as caption from './caption.js'
import * as compare from './compare.js'
import * as convert from './convert.js'
import * as data from './data.js'
import * as doctor from './doctor.js'
import * as evaluation from './eval.js'
import * as image from './image.js'
import * as inspect from './inspect.js'
import { endWithReader } from './lines.js'
import * as params from './params.js'
import * as phantom from './phantom.js'
import * as plan from './plan.js'
import * as predict from './predict.js'
import * as prepare from './prepare.js'
import * as prompt from './prompt.js'
import * as setup from './setup.js'
import * as train from './train.js'
import * as verify from './verify.js'

/** One line for people; the stack only for whoever asks for it. */
function fail(message: string, error?: Error): never {
  const stack = process.env.DEBUG ? error?.stack : undefined
  process.stderr.write(`cleft: ${stack ?? message}\n`)
  process.exit(1)
}

endWithReader()
exitOnSignals()
await yargs(hideBin(process.argv))
  .scriptName('cleft')
  .usage('$0 <command> [options]')
  .version(packageVersion(packageRoot()))
  .command(setup.command, setup.describe, setup.builder, setup.handler)
  .command(doctor.command, doctor.describe, doctor.builder, doctor.handler)
  .command(data.command, data.describe, data.builder, data.handler)
  .command(caption.command, caption.describe, caption.builder, caption.handler)
  .command(image.command, image.describe, image.builder, image.handler)
  .command(prepare.command, prepare.describe, prepare.builder, prepare.handler)
  .command(phantom.command, phantom.describe, phantom.builder, phantom.handler)
  .command(plan.command, plan.describe, plan.builder, plan.handler)
  .command(train.command, train.describe, train.builder, train.handler)
  .command(prompt.command, prompt.describe, prompt.builder, prompt.handler)
  .command(evaluation.command, evaluation.describe, evaluation.builder, evaluation.handler)
  .command(predict.command, predict.describe, predict.builder, predict.handler)
  .command(compare.command, compare.describe, compare.builder, compare.handler)
  .command(verify.command, verify.describe, verify.builder, verify.handler)
  .command(params.command, params.describe, params.builder, params.handler)
  .command(inspect.command, inspect.describe, inspect.builder, inspect.handler)
  .command(convert.command, convert.describe, convert.builder, convert.handler)
  .demandCommand(1, 'a command was expected, and none came')
  .strict()
  .wrap(Math.min(110, process.stdout.columns ?? 110))
  .fail((message, error: Error | undefined) => fail(error?.message ?? `${message}; see: npx cleft --help`, error))
  .parseAsync()
