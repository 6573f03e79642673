// Two hosts on one switch, in memory, from Go: one pings the other.
//
//	PKG_CONFIG_PATH=PREFIX/lib/pkgconfig LD_LIBRARY_PATH=PREFIX/lib go run .
package main

// #cgo pkg-config: netstack
// #include <netstack.h>
// #include <stdlib.h>
import "C"

import (
	"fmt"
	"os"
	"unsafe"
)

const config = `{
	"segments": [{"id": 0, "name": "lan", "mtu": 1500}],
	"ports": [{"id": 0, "name": "left", "vlan": {"access": 0}},
	          {"id": 1, "name": "right", "vlan": {"access": 0}}]}`

// must ends the program when a call was not OK.
func must(result C.netstack_result) {
	if result == C.NETSTACK_RESULT_OK {
		return
	}
	var text [128]C.char
	C.netstack_result_message(C.uint32_t(result), &text[0], C.size_t(len(text)), nil)
	fmt.Fprintln(os.Stderr, C.GoString(&text[0]))
	os.Exit(1)
}

func newSwitch() *C.netstack_switch {
	text := C.CString(config)
	defer C.free(unsafe.Pointer(text))
	var read *C.netstack_config
	var problem *C.char
	result := C.netstack_config_from_json(text, C.size_t(len(config)), &read, &problem)
	if problem != nil {
		fmt.Fprintln(os.Stderr, C.GoString(problem))
		C.netstack_string_free(problem)
	}
	must(result)
	var made *C.netstack_switch
	must(C.netstack_switch_new(nil, nil, &made))
	must(C.netstack_switch_install(made, read, nil))
	must(C.netstack_config_free(read))
	return made
}

func newHost(number byte, address string) *C.netstack_host {
	// C's memory, because C is given a pointer to pointers.
	list := (**C.char)(C.malloc(C.size_t(unsafe.Sizeof(uintptr(0)))))
	*list = C.CString(address)
	defer C.free(unsafe.Pointer(list))
	defer C.free(unsafe.Pointer(*list))
	var options C.netstack_host_options
	must(C.netstack_host_options_init(&options))
	options.mac = [6]C.uint8_t{2, 0, 0, 0, 0, C.uint8_t(number)}
	options.addresses = list
	options.address_count = 1
	var made *C.netstack_host
	must(C.netstack_host_new(&options, nil, &made, nil))
	return made
}

func main() {
	const now = 1_000_000
	bridge := newSwitch()
	hosts := []*C.netstack_host{newHost(1, "10.0.0.1/24"), newHost(2, "10.0.0.2/24")}
	var batch *C.netstack_batch
	must(C.netstack_batch_new(&batch))

	other := C.CString("10.0.0.2")
	defer C.free(unsafe.Pointer(other))
	var address C.netstack_address
	must(C.netstack_address_parse(other, &address))
	must(C.netstack_host_ping(hosts[0], now, &address, 1, 1, nil, 0))

	var count C.size_t
	var port C.uint16_t
	for turn := 0; turn < 8; turn++ {
		for at, host := range hosts {
			must(C.netstack_host_poll_batch(host, batch, &count))
			must(C.netstack_switch_handle_batch(bridge, now, C.uint16_t(at), batch))
		}
		for must(C.netstack_switch_poll_batch(bridge, batch, &port, &count)); count > 0; must(C.netstack_switch_poll_batch(bridge, batch, &port, &count)) {
			must(C.netstack_host_handle_batch(hosts[port], now, batch))
		}
	}

	answered := false
	for {
		var event C.netstack_host_event
		var told C.bool
		must(C.netstack_host_poll_event(hosts[0], &event, &told))
		if !told {
			break
		}
		if event.kind == C.NETSTACK_HOST_EVENT_KIND_ECHO_REPLY {
			var text [64]C.char
			must(C.netstack_address_format(&event.address, &text[0], C.size_t(len(text)), nil))
			fmt.Println(C.GoString(&text[0]), "answered")
			answered = true
		}
	}
	must(C.netstack_switch_check(bridge, nil))
	for _, host := range hosts {
		must(C.netstack_host_free(host))
	}
	must(C.netstack_batch_free(batch))
	must(C.netstack_switch_free(bridge))
	if !answered {
		os.Exit(1)
	}
}
