// SPDX-License-Identifier: MIT
#pragma once

#include "dice.hpp"
#include "program.hpp"

#include <cstdint>
#include <limits>

namespace random_programs {

/// Writes a random program.
class Generator {
public:
    explicit Generator(Dice& dice) : dice_{dice} {}

    Program program() {
        program_.trouble = dice_.one_in(2);
        program_.setting = number();
        room_ = 24 + dice_.below(72);
        const unsigned blocks = 1 + dice_.below(12);
        for (unsigned i = 0; i != blocks and room_ != 0; ++i) program_.steps.push_back(outer_step());
        return std::move(program_);
    }

private:
    static constexpr unsigned deepest = 7;

    std::uint32_t number() { return dice_.below(std::numeric_limits<unsigned>::max()); }

    bool takes_room() { return room_ != 0 and --room_ != 0; }

    // Outside all blocks. What comes out of it is always caught: by whom the program was started.
    Step outer_step() {
        Step step;
        switch (dice_.below(16)) {
            case 12:
                step = hook(1);
                break;
            case 13:
                step.kind = Step::Kind::policy, step.number = dice_.below(3);
                break;
            case 14:
                step.kind = dice_.one_in(3) ? Step::Kind::foreign : Step::Kind::ask;
                break;
            case 15:
                step = program_.trouble ? trouble() : hook(1);
                break;
            default:
                step = block(1);
        }
        step.swallow = true;
        return step;
    }

    Steps steps(unsigned most, unsigned depth) {
        Steps list;
        for (unsigned n = dice_.below(most + 1); n != 0 and room_ != 0; --n) list.push_back(step(depth));
        return list;
    }

    Step step(unsigned depth) {
        if (program_.trouble and dice_.one_in(8)) return trouble();
        Step step;
        switch (dice_.below(32)) {
            case 29:
                step.kind = Step::Kind::out_of_order;
                break;
            case 30:
                step.kind = dice_.one_in(3) ? Step::Kind::take_back : Step::Kind::ask;
                break;
            case 31:
                step.kind = dice_.one_in(2) ? Step::Kind::throw_int : Step::Kind::throw_std;
                break;
            default:
                step = depth < deepest and dice_.below(5) >= 3 ? block(depth + 1) : hook(depth + 1);
        }
        step.swallow = not dice_.one_in(4);
        return step;
    }

    Step trouble() {
        Step step;
        step.kind = Step::Kind::trouble;
        step.number = number();
        return step;
    }

    Step hook(unsigned depth) {
        Hook& hook = program_.hooks.emplace_back();
        hook.id = static_cast<unsigned>(program_.hooks.size() - 1);
        hook.kind = kind();
        hook.way = dice_.pick<Hook::Way>(4);
        hook.robust = hook.kind == Kind::commit and dice_.one_in(6);
        hook.judged = hook.kind == Kind::before_commit and dice_.one_in(2);
        hook.large = dice_.one_in(4);
        hook.through_connection = dice_.one_in(4);
        if (dice_.one_in(8)) hook.throws = dice_.one_in(2) ? Throws::integer : Throws::std_exception;
        if (hook.judged and dice_.one_in(8)) hook.throws = Throws::failed_result;
        if (takes_room() and depth < deepest) {
            if (dice_.one_in(hook.kind == Kind::commit ? 4 : 2)) hook.steps = steps(3, depth);
            if (hook.tracked() and dice_.one_in(6)) hook.farewell = steps(2, depth);
            if (hook.way == Hook::Way::copied and dice_.one_in(6)) hook.copying = steps(2, depth);
        }
        hook.copy_throws = hook.way == Hook::Way::copied and dice_.one_in(12);
        Step step;
        step.hook = &hook;
        return step;
    }

    Kind kind() {
        switch (dice_.below(10)) {
            case 6:
            case 7:
                return Kind::before_commit;
            case 8:
                return Kind::rollback;
            case 9:
                return Kind::unless_committed;
            default:
                return Kind::commit;
        }
    }

    Step block(unsigned depth) {
        Block& block = program_.blocks.emplace_back();
        block.id = static_cast<unsigned>(program_.blocks.size() - 1);
        block.form = dice_.pick<Block::Form>(4);
        block.end = end();
        block.join = dice_.one_in(6);
        block.durable = dice_.one_in(depth == 1 ? 8 : 32);
        block.detach = dice_.one_in(depth == 1 ? 8 : 32);
        block.resolve = dice_.one_in(depth == 1 ? 3 : 32);
        block.marked = not dice_.one_in(8);
        block.afterwards = dice_.one_in(4) ? dice_.pick<Block::Afterwards>(3) : Block::Afterwards::run;
        block.begin = dice_.one_in(depth == 1 ? 3 : 32) ? 1 + dice_.below(2) : 0;
        block.retries = dice_.below(4);
        block.settle = number();
        if (takes_room()) block.steps = steps(6, depth);
        Step step;
        step.kind = Step::Kind::block;
        step.block = &block;
        return step;
    }

    Block::End end() {
        switch (dice_.below(24)) {
            case 19:
                return Block::End::leave_open;
            case 20:
                return Block::End::rollback;
            case 21:
                return Block::End::abandon;
            case 22:
                return Block::End::throw_std;
            case 23:
                return Block::End::throw_int;
            default:
                return Block::End::commit;
        }
    }

    Dice& dice_;
    Program program_;
    unsigned room_ = 0;  // how many more hooks and blocks there may be
};

}  // namespace random_programs
