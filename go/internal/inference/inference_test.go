package inference

import (
	"os"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"ml.dwcp.io/dwcpml/internal/feedback"
)

const server = "../../../dwcp_ml/serving"

// The server's compiled messages are compared, not its text: both are made of that.
func TestTheServerHasTheSameMessages(t *testing.T) {
	if _, err := os.Stat(server); err != nil {
		t.Skip("the server is not here: this is the module without its repository")
	}
	for name, file := range map[string]protoreflect.FileDescriptor{
		"inference": File_dwcpml_internal_inference_inference_proto,
		"feedback":  feedback.File_dwcpml_internal_feedback_feedback_proto,
	} {
		content, err := os.ReadFile(server + "/proto/" + name + ".binpb")
		if err != nil {
			t.Fatal(err)
		}
		var files descriptorpb.FileDescriptorSet
		if err := proto.Unmarshal(content, &files); err != nil {
			t.Fatal(err)
		}
		if len(files.File) != 1 {
			t.Fatalf("%d files", len(files.File))
		}
		theirs := files.File[0]
		ours := protodesc.ToFileDescriptorProto(file)
		theirs.Name = ours.Name // the Go client's is one that no other library has
		if !proto.Equal(ours, theirs) {
			t.Errorf("generate.sh has to run:\n%v\nis not the server's\n%v", ours, theirs)
		}
	}
}
