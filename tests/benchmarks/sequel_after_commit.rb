#!/usr/bin/env ruby
# SPDX-License-Identifier: MIT
#
# Times of Sequel's after_commit on SQLite in memory: prints {"<kind>/sequel/<count>": nanoseconds} as JSON.

require 'json'
require 'sequel'

DB = Sequel.sqlite
HOOK = -> {}

def empty(_count)
  DB.transaction {}
end

def hooks(count)
  DB.transaction { count.times { DB.after_commit(&HOOK) } }
end

def depth(count)
  DB.transaction(savepoint: true) do
    DB.after_commit(savepoint: true, &HOOK)
    depth(count - 1) if count > 1
  end
end

def savepoints(count)
  DB.transaction do
    count.times do |i|
      DB.transaction(savepoint: true) do
        DB.after_commit(savepoint: true, &HOOK)
        raise Sequel::Rollback if i.odd?
      end
    end
  end
end

def shortest(work, count)
  Array.new(7) do
    before = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID, :nanosecond)
    send(work, count)
    Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID, :nanosecond) - before
  end.min
end

figures = {}
{ empty: [1], hooks: [1, 10, 100, 1000, 10_000], depth: [1, 10, 100], savepoints: [10, 100, 1000, 4000] }
  .each { |work, counts| counts.each { |count| figures["#{work}/sequel/#{count}"] = shortest(work, count) } }
puts JSON.generate(figures)
