// A plugin of QEMU that counts the instructions a program executes, for benchmarks/arm_instructions.py.
//
// Debian's QEMU takes plugins and comes without their header: these are the declarations of qemu-plugin.h, version 1,
// that are used here. https://www.qemu.org/docs/master/devel/tcg-plugins.html

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*cb)(uint64_t id, struct qemu_plugin_tb* block));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb* block, void (*cb)(unsigned cpu, void* count),
                                          int flags, void* count);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*cb)(uint64_t id, void* unused), void* unused);

EXPORT int qemu_plugin_version = 1;

static uint64_t executed;

static void execute(unsigned cpu, void* count) {
    (void)cpu;
    executed += (uintptr_t)count;
}

static void translate(uint64_t id, struct qemu_plugin_tb* block) {
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(block, execute, 0, (void*)(uintptr_t)qemu_plugin_tb_n_insns(block));
}

static void report(uint64_t id, void* unused) {
    (void)id;
    (void)unused;
    fprintf(stderr, "%" PRIu64 "\n", executed);
}

EXPORT int qemu_plugin_install(uint64_t id, const void* info, int argc, char** argv) {
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_atexit_cb(id, report, NULL);
    return 0;
}
